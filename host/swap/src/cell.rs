//! The place that names the live version.
//!
//! Invariant: `current` is null or came from `Box::into_raw`, and the thread that takes
//! an address out of it owns the version, though calls may still use it.

use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::barrier::Kind;
use crate::draining::Draining;
use crate::hazard::{Record, TooDeep};
use crate::sync::{AtomicPtr, Ordering};
use crate::thread;

/// Holds at most one live version, which is called by many threads and replaced
/// under their calls. Share it by reference or in an `Arc`.
///
/// Make the first one before the process starts its threads: asking the kernel for
/// `membarrier` takes microseconds then, and milliseconds later.
// A line of its own: a neighbour that is written often would slow all calls.
#[repr(align(64))]
pub struct VersionCell<T> {
    current: AtomicPtr<T>,
    owns: PhantomData<*mut T>,
}

// SAFETY: a cell owns its version like a `Box`, and gives it away from whatever
// thread it is on.
unsafe impl<T: Send> Send for VersionCell<T> {}
// SAFETY: through a shared cell, threads get `&T` at the same time (`T: Sync`), and
// each of them can take a version out or put one in (`T: Send`).
unsafe impl<T: Send + Sync> Sync for VersionCell<T> {}

impl<T> VersionCell<T> {
    /// An empty cell.
    pub fn new() -> Self {
        Self::holding(ptr::null_mut())
    }

    fn holding(version: *mut T) -> Self {
        const {
            assert!(
                size_of::<T>() != 0,
                "a version must have a size: those without share one address"
            );
        }
        Kind::chosen();
        Self {
            current: AtomicPtr::new(version),
            owns: PhantomData,
        }
    }

    /// Calls `f` with the live version, or with `None` if the cell is empty. The
    /// version stays alive until `f` has returned or unwound, whatever is switched
    /// meanwhile. May be nested, also over several cells.
    ///
    /// # Errors
    /// [`TooDeep`], without calling `f`, if [`LEVELS`](crate::LEVELS) calls are running on this
    /// thread already.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(Option<&T>) -> R) -> Result<R, TooDeep> {
        match thread::current() {
            Some(record) => self.with_record(record, f),
            None => thread::first(|record| self.with_record(record, f)),
        }
    }

    #[inline(always)]
    fn with_record<R>(
        &self,
        record: &Record,
        f: impl FnOnce(Option<&T>) -> R,
    ) -> Result<R, TooDeep> {
        let claim = record.enter()?;
        let version = claim.protect(&self.current);
        // SAFETY: null, or a live `Box`'s contents that are only shared until no
        // slot names them; `claim` does until `f` is over, and `f` cannot keep the
        // reference, since its result does not depend on the borrow.
        Ok(f(unsafe { version.as_ref() }))
    }

    /// Makes `new` the live version, or empties the cell. Every call that starts
    /// afterwards sees `new`. Returns the old version, which calls may still use.
    ///
    /// Any thread may swap at any time, also from inside a call; each version
    /// that was live is returned by exactly one swap. Takes microseconds.
    ///
    /// # Panics
    /// If `membarrier`, granted at first, is refused now. The switch has happened
    /// then, and the old version is leaked.
    pub fn swap(&self, new: Option<Box<T>>) -> Option<Draining<T>> {
        self.exchange(new.map_or(ptr::null_mut(), Box::into_raw))
    }

    /// Makes a version live (again) that some swap, of this cell or another, took out.
    /// Calls may still be running on it: they and those that start now are one set, which
    /// the next one to take it out waits for. Otherwise as [`swap`](Self::swap).
    ///
    /// # Panics
    /// As [`swap`](Self::swap).
    pub fn put_back(&self, version: Draining<T>) -> Option<Draining<T>> {
        self.exchange(version.into_raw())
    }

    /// `new` is null, or its ownership passes to the cell.
    fn exchange(&self, new: *mut T) -> Option<Draining<T>> {
        let old = NonNull::new(self.current.swap(new, Ordering::AcqRel))?;
        Kind::chosen().heavy();
        // SAFETY: the swap took the only owning address of a boxed version out of the
        // cell, and the barrier came after it.
        Some(unsafe { Draining::new(old) })
    }
}

impl<T> Default for VersionCell<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<Box<T>> for VersionCell<T> {
    fn from(version: Box<T>) -> Self {
        Self::holding(Box::into_raw(version))
    }
}

impl<T> Drop for VersionCell<T> {
    fn drop(&mut self) {
        let version = self.current.load(Ordering::Relaxed);
        if !version.is_null() {
            // SAFETY: the address came from `Box::into_raw` and was not taken out;
            // calls borrow the cell, so none is left.
            drop(unsafe { Box::from_raw(version) });
        }
    }
}

impl<T> fmt::Debug for VersionCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let empty = self.current.load(Ordering::Relaxed).is_null();
        f.debug_struct("VersionCell")
            .field("empty", &empty)
            .finish()
    }
}
