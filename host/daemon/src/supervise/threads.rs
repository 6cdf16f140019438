//! Work in the background, on threads that do one thing and end.
//!
//! No work is dropped when the system has no free thread: it waits, the status shows it, and the clock
//! tries again.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

use hotmerge_instance::spawn::{RETRY, give};
use hotmerge_meta::PluginName;

type Body<C> = dyn FnOnce(&Arc<C>) + Send;

/// Work for a background thread, in the context `C`.
pub(crate) struct Task<C> {
    name: &'static str,
    purpose: String,
    /// Whether its waiting was logged.
    is_reported: bool,
    body: Box<Body<C>>,
}

impl<C> Task<C> {
    /// `name` is the thread's name, `purpose` says what it does, in messages after "to".
    pub(crate) fn new(
        name: &'static str,
        purpose: impl Into<String>,
        body: impl FnOnce(&Arc<C>) + Send + 'static,
    ) -> Self {
        Self {
            name,
            purpose: purpose.into(),
            is_reported: false,
            body: Box::new(body),
        }
    }
}

/// Work that waits for a thread.
#[must_use]
pub(crate) struct Postponed {
    /// When to [`Background::retry`].
    pub(crate) due: Instant,
    /// What waits and why, if it was not reported before.
    pub(crate) news: Option<String>,
}

/// The work that waits for threads.
pub(crate) struct Background<C> {
    waiting: Mutex<Vec<Waiting<C>>>,
}

struct Waiting<C> {
    plugin: PluginName,
    task: Task<C>,
    due: Instant,
    reason: String,
}

impl<C> Default for Background<C> {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
        }
    }
}

impl<C: Send + Sync + 'static> Background<C> {
    /// A plugin's waiting work, and why it waits.
    pub(crate) fn waiting(&self, plugin: &str) -> Vec<String> {
        let waiting = self.lock();
        let its = waiting.iter().filter(|it| it.plugin.as_str() == plugin);
        its.map(|it| it.reason.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiting<C>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Send + Sync + 'static> fmt::Debug for Background<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<_> = self.lock().iter().map(|it| it.reason.clone()).collect();
        f.debug_tuple("Background").field(&reasons).finish()
    }
}

impl<C: Send + Sync + 'static> Background<C> {
    /// Runs a task for a plugin on its own thread; without a free thread the task waits.
    pub(crate) fn run(
        &self,
        context: &Arc<C>,
        plugin: &PluginName,
        task: Task<C>,
    ) -> Option<Postponed> {
        let this = Arc::clone(context);
        let Task {
            name,
            purpose,
            is_reported,
            body,
        } = task;
        match start(name, body, move |body| body(&this)) {
            #[cfg(test)]
            Ok(thread) => trial::started(thread),
            #[cfg(not(test))]
            Ok(thread) => drop(thread),
            Err((error, body)) => {
                let task = Task {
                    name,
                    purpose,
                    is_reported,
                    body,
                };
                return Some(self.postpone(plugin, task, &error));
            }
        }
        None
    }

    /// Queues work for which there was no thread.
    pub(crate) fn postpone(
        &self,
        plugin: &PluginName,
        mut task: Task<C>,
        error: &io::Error,
    ) -> Postponed {
        let reason = format!("no thread was available {}: {error}", task.purpose);
        let is_new = !std::mem::replace(&mut task.is_reported, true);
        let news = is_new.then(|| reason.clone());
        let due = Instant::now() + RETRY;
        self.lock().push(Waiting {
            plugin: plugin.clone(),
            task,
            due,
            reason,
        });
        Postponed { due, news }
    }

    /// Starts work that is due. Returns when the next is due.
    pub(crate) fn retry(&self, context: &Arc<C>, now: Instant) -> Option<Instant> {
        let due: Vec<_> = self.lock().extract_if(.., |it| it.due <= now).collect();
        for Waiting { plugin, task, .. } in due {
            // Its waiting was reported before, and its due time is found below.
            drop(self.run(context, &plugin, task));
        }
        self.lock().iter().map(|it| it.due).min()
    }
}

fn start<T: Send + 'static>(
    name: &str,
    body: T,
    run: impl FnOnce(T) + Send + 'static,
) -> Result<JoinHandle<()>, (io::Error, T)> {
    #[cfg(test)]
    if trial::NONE.get() {
        return Err((io::ErrorKind::WouldBlock.into(), body));
    }
    give(name, body, run)
}

/// Control over threads for tests.
#[cfg(test)]
pub(crate) mod trial {
    use std::{
        cell::{Cell, RefCell},
        thread::JoinHandle,
    };

    thread_local! {
        /// Whether no thread is available.
        pub(crate) static NONE: Cell<bool> = const { Cell::new(false) };
        static STARTED: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn started(thread: JoinHandle<()>) {
        STARTED.with_borrow_mut(|all| all.push(thread));
    }

    /// Waits until all started threads have ended; returns their number.
    pub(crate) fn join() -> usize {
        let started = STARTED.take();
        let number = started.len();
        for thread in started {
            thread.join().expect("it ends");
        }
        number
    }
}
