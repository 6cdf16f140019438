//! A cell whose calls can be made to wait during a hand-over of state.
//!
//! Invariant: while the gate is shut the cell is empty, and it is shut and opened only
//! under the lock. A call therefore checks the gate only after it found the cell empty:
//! calls of a live version pay nothing for it.

use crate::sync::{Condvar, Mutex, lock, sleep};
use crate::{Draining, TooDeep, VersionCell};

/// A [`VersionCell`] that can be paused: calls that start meanwhile wait instead of finding it
/// empty.
pub struct Gate<T> {
    cell: VersionCell<T>,
    shut: Mutex<bool>,
    opened: Condvar,
}

impl<T> Gate<T> {
    /// An open gate without a version.
    pub fn new() -> Self {
        Self {
            cell: VersionCell::new(),
            shut: Mutex::new(false),
            opened: Condvar::new(),
        }
    }

    /// As [`VersionCell::with`], after waiting for as long as the gate is shut.
    ///
    /// # Errors
    /// As [`VersionCell::with`].
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(Option<&T>) -> R) -> Result<R, TooDeep> {
        // The closure stays where it is: to hand it back by value would send every call's
        // result through memory.
        let mut f = Some(f);
        let called = self
            .cell
            .with(|live| live.and_then(|version| f.take().map(|f| f(Some(version)))))?;
        match (called, f) {
            (Some(result), _) => Ok(result),
            (None, Some(f)) => self.wait_and_call(f),
            (None, None) => unreachable!("a closure that was taken has made a result"),
        }
    }

    /// As [`VersionCell::with`]: `None` also while the gate is shut, for callers that must not wait.
    ///
    /// # Errors
    /// As [`VersionCell::with`].
    pub fn peek<R>(&self, f: impl FnOnce(Option<&T>) -> R) -> Result<R, TooDeep> {
        self.cell.with(f)
    }

    /// Calls `f` if there is a version, and gives it back if there is none.
    #[inline(always)]
    fn attempt<R, F: FnOnce(Option<&T>) -> R>(&self, f: F) -> Result<Result<R, F>, TooDeep> {
        self.cell.with(|live| match live {
            Some(version) => Ok(f(Some(version))),
            None => Err(f),
        })
    }

    #[cold]
    #[inline(never)]
    fn wait_and_call<R, F: FnOnce(Option<&T>) -> R>(&self, mut f: F) -> Result<R, TooDeep> {
        loop {
            let mut shut = lock(&self.shut);
            while *shut {
                (shut, _) = sleep(&self.opened, shut, None);
            }
            // Nobody can shut it while the lock is held, so "empty" means what it says.
            if self.cell.with(|live| live.is_none())? {
                drop(shut);
                return Ok(f(None));
            }
            drop(shut);
            match self.attempt(f)? {
                Ok(result) => return Ok(result),
                Err(back) => f = back,
            }
        }
    }

    /// Makes `new` the live version as [`VersionCell::swap`] does, and opens the gate.
    ///
    /// # Panics
    /// As [`VersionCell::swap`].
    pub fn swap(&self, new: Option<Box<T>>) -> Option<Draining<T>> {
        let mut shut = lock(&self.shut);
        let old = self.cell.swap(new);
        self.open(&mut shut);
        old
    }

    /// Shuts the gate and takes the live version out: calls that start from now on wait
    /// until somebody [swaps](Self::swap) or [puts one back](Self::put_back).
    ///
    /// # Panics
    /// As [`VersionCell::swap`].
    pub fn pause(&self) -> Option<Draining<T>> {
        let mut shut = lock(&self.shut);
        *shut = true;
        self.cell.swap(None)
    }

    /// Makes a version live again that some swap took out, calls on it or not, and opens
    /// the gate. Returns what was live.
    ///
    /// # Panics
    /// As [`VersionCell::swap`].
    pub fn put_back(&self, version: Draining<T>) -> Option<Draining<T>> {
        let mut shut = lock(&self.shut);
        let old = self.cell.put_back(version);
        self.open(&mut shut);
        old
    }

    fn open(&self, shut: &mut bool) {
        if std::mem::take(shut) {
            self.opened.notify_all();
        }
    }
}

impl<T> Default for Gate<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> std::fmt::Debug for Gate<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("cell", &self.cell).finish()
    }
}
