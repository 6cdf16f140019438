//! What one thread tells the others: the versions that its running calls use.
//!
//! Invariant: slots below `depth` belong to running calls of the thread that the
//! record is lent to, and only that thread writes `version` and `depth`. `watched`
//! is written under the registry's lock.

use std::ptr;
use std::sync::atomic::AtomicUsize;

use crate::barrier::Kind;
use crate::cell::TooDeep;
use crate::registry::registry;
use crate::sync::{AtomicBool, AtomicPtr, Ordering};

/// How many calls may be nested on one thread, over all cells.
pub const LEVELS: usize = if cfg!(loom) { 2 } else { 16 };

/// One level of nesting.
pub(crate) struct Slot {
    /// Address of the version in use, null for none.
    version: AtomicPtr<()>,
    /// Somebody sleeps until this slot changes.
    watched: AtomicBool,
}

impl Slot {
    fn new() -> Self {
        Self {
            version: AtomicPtr::new(ptr::null_mut()),
            watched: AtomicBool::new(false),
        }
    }

    /// Ends the slot's use, and wakes whoever waits for that.
    #[inline(always)]
    fn clear(&self, kind: Kind) {
        self.version.store(ptr::null_mut(), Ordering::Release);
        kind.light();
        if self.is_watched() {
            registry().notify(self);
        }
    }

    /// Whether the slot names `version`. If not, whatever a call did with it
    /// through this slot has happened before.
    pub(crate) fn holds(&self, version: *mut ()) -> bool {
        ptr::eq(self.version.load(Ordering::Acquire), version)
    }

    /// Asks the slot's owner to notify when it changes. Under the registry's lock.
    pub(crate) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Takes back what [`watch`](Self::watch) asked. Under the registry's lock.
    pub(crate) fn unwatch(&self) {
        self.watched.store(false, Ordering::Relaxed);
    }

    /// Whether the owner was asked to notify.
    #[inline(always)]
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }
}

/// The slots of one thread. Aligned so that no other thread's stores share its
/// cache lines, nor the neighbour line that processors fetch along.
#[repr(C, align(128))]
pub(crate) struct Record {
    /// A copy, to have it in the cache line that a call touches anyway.
    kind: Kind,
    /// How many slots are taken. The standard library's, also in a model: no other
    /// thread reads it.
    depth: AtomicUsize,
    slots: [Slot; LEVELS],
}

impl Record {
    pub(crate) fn new() -> Self {
        Self {
            kind: Kind::chosen(),
            depth: AtomicUsize::new(0),
            slots: std::array::from_fn(|_| Slot::new()),
        }
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether no call of the owning thread runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.depth.load(Ordering::Relaxed) == 0
    }

    /// Takes the next slot for a call. Only on the thread the record is lent to.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Result<Claim<'_>, TooDeep> {
        let level = self.depth.load(Ordering::Relaxed);
        let slot = self.slots.get(level).ok_or(TooDeep)?;
        self.depth.store(level + 1, Ordering::Relaxed);
        Ok(Claim {
            record: self,
            slot,
            level,
        })
    }
}

/// A slot taken for one call, given back on drop, so also when the call unwinds.
/// Claims of a record end in the reverse order of their making, because each lives
/// in one frame of the call.
pub(crate) struct Claim<'a> {
    record: &'a Record,
    slot: &'a Slot,
    level: usize,
}

impl Claim<'_> {
    /// Reads `current` and keeps what it names from being freed for as long as the
    /// claim lives. Null if there is nothing.
    #[inline(always)]
    pub(crate) fn protect<T>(&self, current: &AtomicPtr<T>) -> *mut T {
        let mut seen = current.load(Ordering::Relaxed);
        loop {
            if seen.is_null() {
                return seen;
            }
            self.slot.version.store(seen.cast(), Ordering::Release);
            self.record.kind.light();
            let again = current.load(Ordering::Acquire);
            if ptr::eq(seen, again) {
                return again;
            }
            step_aside(self.slot, self.record.kind);
            seen = again;
        }
    }
}

impl Drop for Claim<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.record.depth.store(self.level, Ordering::Relaxed);
        self.slot.clear(self.record.kind);
    }
}

/// Frees the slot after a switch came between. The version it named was not used,
/// but somebody may already sleep until the slot changes.
#[cold]
#[inline(never)]
fn step_aside(slot: &Slot, kind: Kind) {
    slot.clear(kind);
}
