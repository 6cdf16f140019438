//! Hazard pointers: which versions running calls use, and who waits until one is unused.
//!
//! A thread shows the others by a [`Record`] which versions its running calls use; the
//! [`Registry`] has all records of the process.
//!
//! Invariants: slots below `depth` belong to running calls of the thread that the record is lent
//! to, and only that thread writes `version` and `depth`; `watched` is written under the
//! registry's lock. A record, once made, lives as long as the process and stays listed, so that
//! looking at slots is always safe; there are as many as threads ever made calls at the same
//! time. Calls take the lock only on a thread's first call and when somebody waits for exactly
//! the slot they leave.

use std::sync::atomic::AtomicUsize;
use std::time::Instant;
use std::{fmt, ptr};

use crate::barrier::Kind;
use crate::sync::{AtomicBool, AtomicPtr, Condvar, Mutex, Ordering, lock, sleep};

/// How many calls may be nested on one thread, over all cells.
pub const LEVELS: usize = if cfg!(loom) { 2 } else { 16 };

/// One level of nesting.
pub(crate) struct Slot {
    /// Address of the version in use, null for none.
    version: AtomicPtr<()>,
    /// Whether a waiter sleeps until this slot changes.
    watched: AtomicBool,
}

impl Slot {
    fn new() -> Self {
        Self {
            version: AtomicPtr::new(ptr::null_mut()),
            watched: AtomicBool::new(false),
        }
    }

    /// Releases the slot and wakes its waiter.
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

    /// Undoes [`watch`](Self::watch). Under the registry's lock.
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

/// A call was refused because [`LEVELS`] calls are running on its thread already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep;

impl fmt::Display for TooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "calls are nested {LEVELS} deep on this thread already; look for plugins that call \
             each other in a circle"
        )
    }
}

impl std::error::Error for TooDeep {}

/// All records of the process, and those who sleep until a version is unused.
pub(crate) struct Registry {
    records: Mutex<Records>,
    changed: Condvar,
}

struct Records {
    all: Vec<&'static Record>,
    /// Those that no thread uses.
    idle: Vec<&'static Record>,
}

#[cfg(not(loom))]
pub(crate) fn registry() -> &'static Registry {
    static REGISTRY: Registry = Registry {
        records: Mutex::new(Records::new()),
        changed: Condvar::new(),
    };
    &REGISTRY
}

// Leaked, because loom ends its statics before the destructors of other threads'
// variables, which give records back.
#[cfg(loom)]
loom::lazy_static! {
    static ref REGISTRY: &'static Registry = Box::leak(Box::new(Registry {
        records: Mutex::new(Records::new()),
        changed: Condvar::new(),
    }));
}

#[cfg(loom)]
pub(crate) fn registry() -> &'static Registry {
    *REGISTRY
}

impl Registry {
    /// Lends a record to the calling thread.
    pub(crate) fn lend(&self) -> &'static Record {
        let mut records = lock(&self.records);
        if let Some(record) = records.idle.pop() {
            return record;
        }
        let record: &'static Record = Box::leak(Box::new(Record::new()));
        records.all.push(record);
        record
    }

    /// Takes a record back. One with calls on it stays with them for good: its
    /// thread is exiting from inside a call, and others may still be running.
    pub(crate) fn give_back(&self, record: &'static Record) {
        if record.is_idle() {
            lock(&self.records).idle.push(record);
        }
    }

    /// How many slots name `version`, after a heavy barrier that followed its
    /// removal from its cell. None means that it can be freed.
    pub(crate) fn uses(&self, version: *mut ()) -> usize {
        let records = lock(&self.records);
        records.slots().filter(|slot| slot.holds(version)).count()
    }

    /// Sleeps until no slot uses `version`, on the same condition as
    /// [`uses`](Self::uses). False if `deadline` passed before.
    pub(crate) fn wait_until_unused(&self, version: *mut (), deadline: Option<Instant>) -> bool {
        let mut records = lock(&self.records);
        let mut expired = false;
        while records.watch(version) {
            if expired {
                return false;
            }
            (records, expired) = sleep(&self.changed, records, deadline);
        }
        true
    }

    /// Wakes those who wait for `slot` to change. By its owner.
    #[cold]
    #[inline(never)]
    pub(crate) fn notify(&self, slot: &Slot) {
        let _records = lock(&self.records);
        slot.unwatch();
        self.changed.notify_all();
    }

    /// How many records were ever made.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn len(&self) -> usize {
        lock(&self.records).all.len()
    }
}

impl Records {
    const fn new() -> Self {
        Self {
            all: Vec::new(),
            idle: Vec::new(),
        }
    }

    fn slots(&self) -> impl Iterator<Item = &'static Slot> {
        self.all.iter().flat_map(|record| record.slots())
    }

    /// Marks the slots that name `version`. True if one of them still does so after
    /// the mark can no longer be overlooked: its owner will notify.
    fn watch(&self, version: *mut ()) -> bool {
        let holds = |slot: &&Slot| slot.holds(version);
        let mut users = self.slots().filter(holds).peekable();
        if users.peek().is_none() {
            return false;
        }
        users.for_each(Slot::watch);
        Kind::chosen().heavy();
        self.slots()
            .filter(|slot| slot.is_watched())
            .any(|slot| slot.holds(version))
    }
}
