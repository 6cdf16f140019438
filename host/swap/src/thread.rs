//! The record of the calling thread: lent at its first call, returned at its end.
//!
//! Invariant: a record is lent to one thread at a time. Calls from thread-local
//! destructors, after the thread gave its record back, borrow one per call.

use std::cell::Cell;

use crate::hazard::{Record, Registry, registry};

// Two variables, because one without a destructor is read without asking whether
// it still exists.
#[cfg(not(loom))]
thread_local! {
    static CURRENT: Cell<Option<&'static Record>> = const { Cell::new(None) };
    static LEASE: Lease = Lease::take();
}

#[cfg(loom)]
loom::thread_local! {
    static CURRENT: Cell<Option<&'static Record>> = Cell::new(None);
    static LEASE: Lease = Lease::take();
}

/// A record lent to this thread, which finds it in `CURRENT` meanwhile.
pub(crate) struct Lease {
    registry: &'static Registry,
    record: &'static Record,
}

impl Lease {
    /// Borrows a record for this thread, which must have none.
    fn take() -> Self {
        let registry = registry();
        let record = registry.lend();
        set_current(Some(record));
        Self { registry, record }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        set_current(None);
        self.registry.give_back(self.record);
    }
}

/// This thread's record, if it has one already.
#[inline(always)]
pub(crate) fn current() -> Option<&'static Record> {
    CURRENT.with(Cell::get)
}

/// Runs `call` with a record on a thread that has none: for the rest of the
/// thread's life, or for this call if the thread is being torn down.
#[cold]
#[inline(never)]
pub(crate) fn first<R>(call: impl FnOnce(&'static Record) -> R) -> R {
    match LEASE.try_with(|lease| lease.record) {
        Ok(record) => call(record),
        Err(_) => {
            let lease = Lease::take();
            call(lease.record)
        }
    }
}

fn set_current(record: Option<&'static Record>) {
    // Fails in a model only, where this variable too has an end.
    let _ = CURRENT.try_with(|current| current.set(record));
}
