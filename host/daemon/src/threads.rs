//! Work in the background, on threads that do one thing and end.
//!
//! Nothing is dropped where the system has no thread to give: the work waits, the status shows it,
//! and the clock has a thread asked for again.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hotmerge_meta::PluginName;

use crate::supervisor::Supervisor;

/// How soon the system is asked again for what it did not give.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Gives something to a thread of its own.
///
/// # Errors
/// If the system has no thread to give: why, and what was to be given.
pub(crate) fn give<T: Send + 'static>(
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
    match spawn(name, run) {
        Ok(thread) => {
            // The thread waits for nothing else.
            let _ = hand.send(what);
            Ok(thread)
        }
        Err(error) => Err((error, what)),
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    #[cfg(test)]
    if trial::NONE.get() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    thread::Builder::new().name(name.into()).spawn(run)
}

type Body = dyn FnOnce(&Arc<Supervisor>) + Send;

/// Something to be done in the background.
pub(crate) struct Task {
    name: &'static str,
    purpose: String,
    /// Whether it was told that it waits.
    is_told: bool,
    body: Box<Body>,
}

impl Task {
    /// `name` is the thread's, `purpose` says `to` what end it is needed.
    pub(crate) fn new(
        name: &'static str,
        purpose: impl Into<String>,
        body: impl FnOnce(&Arc<Supervisor>) + Send + 'static,
    ) -> Self {
        Self {
            name,
            purpose: purpose.into(),
            is_told: false,
            body: Box::new(body),
        }
    }
}

/// What waits for a thread.
#[derive(Default)]
pub(crate) struct Background {
    waiting: Mutex<Vec<Waiting>>,
}

struct Waiting {
    plugin: PluginName,
    task: Task,
    due: Instant,
    reason: String,
}

impl Background {
    /// What of a plugin waits, and why.
    pub(crate) fn waiting(&self, plugin: &str) -> Vec<String> {
        let waiting = self.lock();
        let its = waiting.iter().filter(|it| it.plugin.as_str() == plugin);
        its.map(|it| it.reason.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<_> = self.lock().iter().map(|it| it.reason.clone()).collect();
        f.debug_tuple("Background").field(&reasons).finish()
    }
}

impl Supervisor {
    /// Does something for a plugin on a thread of its own, now or as soon as there is one.
    pub(crate) fn in_background(self: &Arc<Self>, plugin: &PluginName, task: Task) {
        let this = Arc::clone(self);
        let Task {
            name,
            purpose,
            is_told,
            body,
        } = task;
        match give(name, body, move |body| body(&this)) {
            #[cfg(test)]
            Ok(thread) => trial::started(thread),
            #[cfg(not(test))]
            Ok(thread) => drop(thread),
            Err((error, body)) => {
                let task = Task {
                    name,
                    purpose,
                    is_told,
                    body,
                };
                self.put_off(plugin, task, &error);
            }
        }
    }

    /// Has something wait that there was no thread for.
    pub(crate) fn put_off(&self, plugin: &PluginName, mut task: Task, error: &io::Error) {
        let reason = format!("there was no thread {}: {error}", task.purpose);
        if !std::mem::replace(&mut task.is_told, true) {
            let ms = ASK_AGAIN.as_millis();
            tracing::error!(%plugin, "{reason}; asking again every {ms} ms");
        }
        let due = Instant::now() + ASK_AGAIN;
        self.background.lock().push(Waiting {
            plugin: plugin.clone(),
            task,
            due,
            reason,
        });
        self.clock.wake_at(due);
    }

    /// Asks again for the threads that it is time to ask for. Returns when the next is due.
    pub(crate) fn ask_again(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let mut waiting = self.background.lock();
        let due: Vec<_> = waiting.extract_if(.., |it| it.due <= now).collect();
        let next = waiting.iter().map(|it| it.due).min();
        drop(waiting);
        for Waiting { plugin, task, .. } in due {
            self.in_background(&plugin, task);
        }
        next
    }
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
        static STARTED: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn started(thread: JoinHandle<()>) {
        STARTED.with_borrow_mut(|all| all.push(thread));
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
