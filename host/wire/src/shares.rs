//! How many slots each calling plugin holds, so that none can take them all from the others, neither by
//! its current calls nor by abandoned ones.
//!
//! Absent on purpose: a limit on the host's own calls, which may use every free slot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pool::Pool;

/// The plugin that holds each slot, if any.
#[derive(Debug)]
pub(crate) struct Shares {
    holders: Mutex<Vec<Option<Arc<str>>>>,
    /// Most slots that one plugin may hold.
    each: usize,
    /// Most slots that all plugins together may hold.
    all: usize,
}

impl Shares {
    /// Half of the slots per plugin, three quarters for all plugins together; at least one.
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

    /// Takes a slot for a plugin, if one is free and its share is not used up.
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

    /// Notes that a plugin's slot is about to become free.
    pub(crate) fn give(&self, number: u32) {
        self.holders()[number as usize] = None;
    }
}
