//! Who holds how many slots, so that no plugin can take them all from the others: neither while it
//! calls nor by calls that it has left behind.
//!
//! Absent on purpose: the host's own calls, which have all slots that are free.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pool::Pool;

/// For whom each slot is held, if not for the host itself.
#[derive(Debug)]
pub(crate) struct Shares {
    holders: Mutex<Vec<Option<Arc<str>>>>,
    /// Most slots that one may hold.
    each: usize,
    /// Most that all of them may hold.
    all: usize,
}

impl Shares {
    /// Half of the slots for one, three quarters for all; at least one.
    pub(crate) fn new(slots: u32) -> Self {
        let slots = slots as usize;
        Self {
            holders: Mutex::new(vec![None; slots]),
            each: (slots / 2).max(1),
            all: (slots * 3 / 4).max(1),
        }
    }

    fn holders(&self) -> MutexGuard<'_, Vec<Option<Arc<str>>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot for somebody, if one is free and that is no more than a share.
    pub(crate) fn try_take(&self, pool: &Pool, holder: &Arc<str>) -> Option<u32> {
        let mut holders = self.holders();
        let all = holders.iter().flatten();
        let own = all.clone().filter(|it| *it == holder).count();
        if own >= self.each || all.count() >= self.all {
            return None;
        }
        let number = pool.try_take()?;
        holders[number as usize] = Some(Arc::clone(holder));
        Some(number)
    }

    /// A slot that was held for somebody is about to be free.
    pub(crate) fn give(&self, number: u32) {
        self.holders()[number as usize] = None;
    }
}
