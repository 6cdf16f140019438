//! The threads for slow and blocking work.

use super::problem::Problem;

/// Runs slow or blocking work on a thread that serves no connections.
pub(super) async fn on_a_thread<T, F>(run: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let done = tokio::task::spawn_blocking(run).await;
    done.map_err(Problem::internal)
}
