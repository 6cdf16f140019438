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

#[cfg(test)]
mod tests {
    use super::*;

    /// A limit whose period ends now, or not before the end of all time.
    fn alarms(is_over: bool) -> Alarms {
        let alarms = Alarms::new();
        end(&alarms, is_over);
        alarms
    }

    fn end(alarms: &Alarms, is_over: bool) {
        let since_ns = if is_over { 0 } else { u64::MAX };
        alarms.since_ns.store(since_ns, Ordering::Relaxed);
    }

    /// How many wake-ups are permitted in a row, up to more than can be.
    fn permitted(alarms: &Alarms) -> u32 {
        let tries = 0..4 * MOST;
        tries.take_while(|_| alarms.allow()).count() as u32
    }

    #[test]
    fn a_period_permits_so_many_needless_wakes() {
        let alarms = alarms(false);
        assert_eq!(permitted(&alarms), EACH);
        assert!(!alarms.allow(), "nor any later one in the same period");
    }

    #[test]
    fn calls_justify_as_many_wakes_as_they_cause() {
        let alarms = alarms(false);
        permitted(&alarms);
        for calls in [1, 7, 1000] {
            (0..calls).for_each(|_| alarms.justified());
            assert_eq!(permitted(&alarms), calls * PER_CALL);
        }
    }

    #[test]
    fn the_number_of_alarms_has_an_upper_bound() {
        let alarms = alarms(false);
        (0..2 * MOST).for_each(|_| alarms.justified());
        let permitted = permitted(&alarms);
        assert!((MOST..MOST + PER_CALL).contains(&permitted), "{permitted}");
    }

    #[test]
    fn each_new_period_permits_as_many_again() {
        let alarms = alarms(false);
        permitted(&alarms);
        for _ in 0..3 {
            end(&alarms, true);
            assert!(alarms.allow(), "the first of a new period");
            end(&alarms, false);
            assert_eq!(permitted(&alarms), EACH);
        }
    }

    /// Quiet time does not add to the allowance.
    #[test]
    fn quiet_periods_add_nothing() {
        let alarms = alarms(true);
        (0..EACH).for_each(|_| assert!(alarms.allow()));
        end(&alarms, false);
        assert_eq!(permitted(&alarms), 0);
    }
}
