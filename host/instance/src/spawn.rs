//! Threads that get what they work on, and give it back if there is no thread.

use std::{
    io,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

/// How soon the system is asked again for what it did not give.
pub const RETRY: Duration = Duration::from_millis(500);

/// Gives something to a thread of its own.
///
/// # Errors
/// If the system has no thread to give: why, and what was to be given.
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
