//! A replaced version that calls may still use.
//!
//! Invariant: a `Draining` owns its version, and frees or returns it only after it
//! saw every slot without it.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use crate::hazard::registry;
use crate::sync::Ordering;

/// Not a model's: only ever counted up.
static LEAKED: AtomicUsize = AtomicUsize::new(0);

/// How many versions were dropped while calls used them, and therefore never freed,
/// since the process started.
pub fn leaked() -> usize {
    LEAKED.load(Ordering::Relaxed)
}

/// The version that a [`swap`](crate::VersionCell::swap) took out. It can be read, and taken
/// by value once the last call on it has returned.
///
/// Dropping it while calls still use it leaks the version, because freeing it would
/// pull it from under them and waiting could last for ever; [`leaked`] counts
/// these.
#[must_use = "dropping a version that is still in use leaks it"]
pub struct Draining<T> {
    version: NonNull<T>,
}

// SAFETY: moving it to a thread lets that thread drop the version (`T: Send`)
// and read it while calls on other threads do (`T: Sync`).
unsafe impl<T: Send + Sync> Send for Draining<T> {}
// SAFETY: a shared one only hands out `&T`.
unsafe impl<T: Sync> Sync for Draining<T> {}

impl<T> Draining<T> {
    /// # Safety
    /// `version` came from `Box::into_raw`, its ownership passes on, no cell
    /// names it, and a heavy barrier followed its removal from the last one.
    pub(crate) unsafe fn new(version: NonNull<T>) -> Self {
        Self { version }
    }

    /// How many calls use this version. Once 0 it stays 0, as far as real uses go: a
    /// call that lost a race with the switch may be counted for a moment.
    pub fn in_flight(&self) -> usize {
        registry().uses(self.address())
    }

    /// Sleeps until the last call has returned, then gives the version back.
    ///
    /// Without a deadline this waits as long as it takes. Called from inside a call
    /// on this same version, it waits for itself: until the deadline, or for ever.
    ///
    /// # Errors
    /// `self`, unchanged, if calls are still running at the deadline.
    ///
    /// # Panics
    /// If `membarrier`, granted at first, is refused now.
    pub fn wait(self, deadline: Option<Instant>) -> Result<Box<T>, Self> {
        if !registry().wait_until_unused(self.address(), deadline) {
            return Err(self);
        }
        let version = ManuallyDrop::new(self).version;
        // SAFETY: boxed and owned by `new`'s contract; nothing uses it any more, and
        // without `self`, whose drop is skipped, nobody else frees it.
        Ok(unsafe { Box::from_raw(version.as_ptr()) })
    }

    /// The address, without an owner now: a cell is to take it.
    pub(crate) fn into_raw(self) -> *mut T {
        ManuallyDrop::new(self).version.as_ptr()
    }

    fn address(&self) -> *mut () {
        self.version.as_ptr().cast()
    }
}

impl<T> Deref for Draining<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: owned, and freed only by `wait` or `drop`, which consume `self`.
        unsafe { self.version.as_ref() }
    }
}

impl<T> Drop for Draining<T> {
    fn drop(&mut self) {
        if self.in_flight() > 0 {
            LEAKED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // SAFETY: boxed and owned by `new`'s contract, and nothing uses it any more.
        drop(unsafe { Box::from_raw(self.version.as_ptr()) });
    }
}

impl<T> fmt::Debug for Draining<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining")
            .field("in_flight", &self.in_flight())
            .finish()
    }
}
