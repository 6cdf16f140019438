//! Ends calls from another thread.
//!
//! A call in a worker waits in two places: for a worker that takes calls, then for its answer, and
//! after a retry for both again. A thread that is about to wait first registers how to wake it, and then checks
//! the mark; a thread that cancels sets the mark first. So neither can miss the other.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hotmerge_wire as wire;

/// Ends calls from another thread: give it to `Plugin::call_with`, and
/// [`Cancel::cancel`] ends every call that has it, those under way and those to come.
///
/// Only the waiting ends. A plugin in a worker does not notice and may continue until the
/// deadline of the call (without one, the host's `call_ms`); its worker is ended only if it goes on
/// after that. A call that waits during a hand-over of state ends after it.
///
/// Nothing can interrupt code in the host's own process (`isolation = "host"`): a call that has
/// begun there returns when the plugin does, with its reply. One that was cancelled before is not
/// begun.
#[derive(Debug, Default)]
pub struct Cancel {
    mark: wire::Cancel,
    waiting: Mutex<Vec<Arc<dyn Wake>>>,
    /// The plugin whose calls it ends, if they are a plugin's.
    holder: Option<Arc<str>>,
}

/// Where a call waits.
pub(crate) trait Wake: fmt::Debug + Send + Sync {
    /// Makes waiting threads check the mark, which is set.
    fn wake(&self, mark: &wire::Cancel);
}

/// The call was cancelled.
#[derive(Debug)]
pub(crate) struct Cancelled;

impl Cancel {
    /// Ends the calls that have it with [`CallError::Cancelled`](hotmerge_loader::CallError), from
    /// now on and for ever.
    pub fn cancel(&self) {
        self.mark.set();
        for place in &*self.waiting() {
            place.wake(&self.mark);
        }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.mark.is_set()
    }

    /// Ends the calls that a plugin makes.
    pub(crate) fn on_behalf_of(plugin: &str) -> Self {
        Self {
            holder: Some(plugin.into()),
            ..Self::default()
        }
    }

    /// The plugin whose calls it ends, if they are a plugin's.
    pub(crate) fn holder(&self) -> Option<&Arc<str>> {
        self.holder.as_ref()
    }

    /// The mark that workers' callers look at.
    pub(crate) fn mark(&self) -> &wire::Cancel {
        &self.mark
    }

    /// Waits for something in a place, unless it was cancelled before.
    pub(crate) fn wait_in<R>(
        &self,
        place: Arc<dyn Wake>,
        wait: impl FnOnce() -> R,
    ) -> Result<R, Cancelled> {
        let _stay = Stay::begin(self, place);
        match self.is_cancelled() {
            true => Err(Cancelled),
            false => Ok(wait()),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<dyn Wake>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in a place, until dropped.
struct Stay<'a> {
    cancel: &'a Cancel,
    place: Arc<dyn Wake>,
}

impl<'a> Stay<'a> {
    fn begin(cancel: &'a Cancel, place: Arc<dyn Wake>) -> Self {
        cancel.waiting().push(Arc::clone(&place));
        Self { cancel, place }
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        let mut waiting = self.cancel.waiting();
        // Several calls may be in one place; each takes out one.
        if let Some(at) = waiting.iter().position(|it| Arc::ptr_eq(it, &self.place)) {
            waiting.swap_remove(at);
        }
    }
}
