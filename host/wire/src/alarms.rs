//! Limits how often an untrusted peer may wake this side without a reason.
//!
//! An honest peer does so at most once per call, when a thread that was awake already takes the call.
//! A peer that wakes without pause exceeds the limit long before it keeps a processor busy.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::now_ns;

/// Needless wake-ups permitted per period, beside those that calls justify. Each takes about 5 µs, so
/// they cost at most half a percent of a processor.
const EACH: u32 = 1000;
/// The period in nanoseconds.
const PERIOD_NS: u64 = 1_000_000_000;
/// Wake-ups that one call justifies.
const PER_CALL: u32 = 2;
/// Most wake-ups that calls may justify in advance.
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

    /// Notes that a wake-up had a reason.
    pub(crate) fn justified(&self) {
        if self.left.load(Ordering::Relaxed) < MOST {
            self.left.fetch_add(PER_CALL, Ordering::Relaxed);
        }
    }

    /// Whether one more needless wake-up is permitted; counts it.
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
