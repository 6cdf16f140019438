//! Hands work to new threads, and returns it if no thread can be created.

use std::{
    io,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

/// How soon to ask the system again for a resource that was lacking.
pub const RETRY: Duration = Duration::from_millis(500);

/// Hands something to its own thread.
///
/// # Errors
/// If no thread can be created: why, and what was to be handed over.
pub fn give<T: Send + 'static>(
    name: &str,
    what: T,
    body: impl FnOnce(T) + Send + 'static,
) -> Result<JoinHandle<()>, (io::Error, T)> {
    let (hand, receive) = mpsc::sync_channel(1);
    let run = move || {
        if let Ok(what) = receive.recv() {
            body(what);
        }
    };
    match thread::Builder::new().name(name.into()).spawn(run) {
        Ok(thread) => {
            // The thread waits for nothing else.
            let _ = hand.send(what);
            Ok(thread)
        }
        Err(error) => Err((error, what)),
    }
}
