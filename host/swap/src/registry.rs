//! All records of the process, and those who sleep until a version is unused.
//!
//! Invariant: a record, once made, lives as long as the process and stays listed,
//! so that looking at slots is always safe. There are as many as threads ever
//! made calls at the same time. Calls take the lock only on a thread's first call
//! and when somebody waits for exactly the slot they leave.

use std::time::Instant;

use crate::barrier::Kind;
use crate::record::{Record, Slot};
use crate::sync::{Condvar, Mutex, lock, sleep};

/// See the module's text.
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
