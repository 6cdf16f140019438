//! Threads that do one thing and end.

use std::{io, thread};

/// Does something on a thread of its own.
///
/// # Errors
/// If the system has no thread to give. Nothing of `body` was done then.
pub(crate) fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    #[cfg(test)]
    if trial::NONE.get() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let started = thread::Builder::new().name(name.into()).spawn(body)?;
    #[cfg(test)]
    trial::STARTED.with_borrow_mut(|all| all.push(started));
    #[cfg(not(test))]
    drop(started);
    Ok(())
}

/// What tests decide and learn of the threads that they start.
#[cfg(test)]
pub(crate) mod trial {
    use std::{
        cell::{Cell, RefCell},
        thread::JoinHandle,
    };

    thread_local! {
        /// Whether there is no thread to be had.
        pub(crate) static NONE: Cell<bool> = const { Cell::new(false) };
        pub(super) static STARTED: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
    }

    /// Waits until what was started has ended; returns how many threads that were.
    pub(crate) fn join() -> usize {
        let started = STARTED.take();
        let number = started.len();
        for thread in started {
            thread.join().expect("it ends");
        }
        number
    }
}
