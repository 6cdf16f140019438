//! Hosts whose plugins live in processes of their own.

use hotmerge_daemon::status::WorkerStatus;

use crate::{Lab, TestHost, skipped, worker};

/// Replaces crashed workers as often as a test crashes them.
pub const UNTIRING: &str = "restart = { most = 1000000, within_s = 1, pause_ms = 0 }\n";

impl Lab {
    /// Starts a host that keeps plugins in workers; `None`, and told, where this system does not
    /// give the whole sandbox.
    #[track_caller]
    pub fn start_sandboxed(&self, more: &str) -> Option<TestHost> {
        let config = format!("worker = {:?}\nisolation = \"process\"\n{more}", worker());
        let host = self.start_with(&config);
        let degraded = host.status().host.degraded;
        if degraded.is_empty() {
            return Some(host);
        }
        skipped(&format!(
            "this system gives no whole sandbox: {}",
            degraded.join("; ")
        ));
        None
    }
}

impl TestHost {
    /// What it says of the worker of a plugin.
    ///
    /// # Panics
    /// If the plugin has none.
    #[track_caller]
    pub fn worker(&self, plugin: &str) -> WorkerStatus {
        let plugin = self.plugin(plugin);
        plugin.worker.expect("it lives in a process of its own")
    }

    /// Waits until the worker of a plugin was replaced so often and takes calls; says why it was
    /// the last time.
    #[track_caller]
    pub fn replaced(&self, plugin: &str, restarts: u64) -> String {
        let failure = self.wait_for("the worker is replaced", |status| {
            let mut plugins = status.plugins.iter();
            let plugin = plugins.find(|it| it.name == plugin)?;
            plugin.worker.as_ref()?.pid?;
            (plugin.restarts >= restarts).then(|| plugin.last_failure.clone())
        });
        failure.expect("it is named").to_string()
    }
}
