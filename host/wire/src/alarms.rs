//! How often a side that is not trusted may wake this one for nothing.
//!
//! An honest one does so at most once per call: a call may be taken by a thread that was awake. One that
//! rings without pause would keep a processor busy; it has broken the rules long before that matters.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::now_ns;

/// Wake-ups for nothing in each period, beside those that calls justify. Some 5 µs each: at most
/// one part in two hundred of a processor, for ever.
const EACH: u32 = 1000;
/// The period in nanoseconds.
const PERIOD_NS: u64 = 1_000_000_000;
/// What a call justifies.
const PER_CALL: u32 = 2;
/// What calls justify at most in advance.
const MOST: u32 = 100_000;

#[derive(Debug)]
pub(crate) struct Alarms {
    left: AtomicU32,
    since_ns: AtomicU64,
}

impl Alarms {
    pub(crate) fn new() -> Self {
        Self {
            left: AtomicU32::new(EACH),
            since_ns: AtomicU64::new(now_ns()),
        }
    }

    /// A wake-up had a reason.
    pub(crate) fn justified(&self) {
        if self.left.load(Ordering::Relaxed) < MOST {
            self.left.fetch_add(PER_CALL, Ordering::Relaxed);
        }
    }

    /// Whether one more may be for nothing.
    pub(crate) fn allow(&self) -> bool {
        let take = |left: u32| left.checked_sub(1);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if taken.is_ok() {
            return true;
        }
        let (since, now) = (self.since_ns.load(Ordering::Relaxed), now_ns());
        if now.saturating_sub(since) < PERIOD_NS {
            return false;
        }
        self.since_ns.store(now, Ordering::Relaxed);
        self.left.fetch_max(EACH, Ordering::Relaxed);
        true
    }
}
