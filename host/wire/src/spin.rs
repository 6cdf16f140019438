//! How long to poll before sleeping: about as long as the other side took recently.
//!
//! A wake-up costs 20 to 40 µs, a small call less than 1 µs. Polling is faster if the answer comes
//! soon, and wastes a core if it does not. The budget follows what was measured, and falls to zero
//! when polling does not pay.

use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::now_ns;

/// Longest poll, in nanoseconds: about the cost of the two wake-ups that it saves.
const MOST_NS: u32 = 100_000;
/// Shortest poll that pays, in nanoseconds.
const LEAST_NS: u32 = 2_000;
/// Checks between two readings of the clock.
const GLANCES: u32 = 16;

#[derive(Debug)]
pub(crate) struct Spin {
    budget_ns: AtomicU32,
    most_ns: u32,
}

impl Spin {
    /// With one core it never polls: that would keep the other side from running.
    pub(crate) fn new(cores: u32) -> Self {
        Self::at_most(if cores > 1 { MOST_NS } else { 0 })
    }

    /// For a side that must never poll.
    pub(crate) fn never() -> Self {
        Self::at_most(0)
    }

    fn at_most(most_ns: u32) -> Self {
        Self {
            budget_ns: AtomicU32::new(0),
            most_ns,
        }
    }

    /// Whether polling has paid recently.
    pub(crate) fn pays(&self) -> bool {
        self.budget_ns.load(Ordering::Relaxed) >= LEAST_NS
    }

    /// Polls until `done` returns `true` or the budget is used up. Returns whether it was done.
    pub(crate) fn poll(&self, done: impl Fn() -> bool) -> bool {
        if done() {
            return true;
        }
        if !self.pays() {
            return false;
        }
        let budget = self.budget_ns.load(Ordering::Relaxed);
        for _ in 0..4 * GLANCES {
            if done() {
                return true;
            }
            spin_loop();
        }
        let began = now_ns();
        loop {
            for _ in 0..GLANCES {
                if done() {
                    self.aim(u32::try_from(now_ns() - began).unwrap_or(u32::MAX));
                    return true;
                }
                spin_loop();
            }
            if now_ns() - began > budget.into() {
                return false;
            }
        }
    }

    /// Learns from the length of a sleep that polling did not avoid.
    pub(crate) fn slept(&self, ns: u64) {
        let budget = self.budget_ns.load(Ordering::Relaxed);
        let next = if ns < u64::from(2 * MOST_NS) {
            (budget * 2).max(2 * LEAST_NS).min(self.most_ns)
        } else {
            budget / 2
        };
        self.budget_ns.store(next, Ordering::Relaxed);
    }

    /// Moves the budget towards a few times the length of the last poll.
    fn aim(&self, took_ns: u32) {
        let target = took_ns
            .saturating_mul(4)
            .clamp(5 * LEAST_NS, self.most_ns.max(5 * LEAST_NS));
        let budget = self.budget_ns.load(Ordering::Relaxed);
        let next = budget - budget / 8 + target / 8;
        self.budget_ns
            .store(next.min(self.most_ns), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A sleep that polling would have avoided, and one that it would not.
    const SHORT_NS: u64 = 2 * MOST_NS as u64 - 1;
    const LONG_NS: u64 = 2 * MOST_NS as u64;

    fn budget(spin: &Spin) -> u32 {
        spin.budget_ns.load(Ordering::Relaxed)
    }

    /// With the largest budget.
    fn eager() -> Spin {
        let spin = Spin::new(2);
        (0..32).for_each(|_| spin.slept(SHORT_NS));
        spin
    }

    /// How often a fruitless poll checks.
    fn glances(spin: &Spin) -> u32 {
        let glances = Cell::new(0);
        let done = spin.poll(|| {
            glances.set(glances.get() + 1);
            false
        });
        assert!(!done);
        glances.get()
    }

    #[test]
    fn an_empty_budget_allows_one_glance() {
        let spin = Spin::new(2);
        assert!(!spin.pays());
        assert_eq!(glances(&spin), 1);
        assert!(spin.poll(|| true), "what is done already is seen");
        spin.slept(SHORT_NS);
        assert!(spin.pays());
        assert!(glances(&spin) > 4 * GLANCES);
    }

    #[test]
    fn short_sleeps_raise_the_budget_to_its_maximum() {
        let spin = Spin::new(2);
        let mut before = budget(&spin);
        assert_eq!(before, 0);
        while before < MOST_NS {
            spin.slept(SHORT_NS);
            let now = budget(&spin);
            assert!(now > before && now <= MOST_NS, "{before} ns, then {now}");
            before = now;
        }
        spin.slept(SHORT_NS);
        assert_eq!(budget(&spin), MOST_NS);
    }

    #[test]
    fn long_sleeps_halve_the_budget_until_polling_stops() {
        let spin = eager();
        let mut before = budget(&spin);
        assert_eq!(before, MOST_NS);
        while before > 0 {
            spin.slept(LONG_NS);
            assert_eq!(budget(&spin), before / 2);
            before /= 2;
        }
        assert_eq!(glances(&spin), 1);
    }

    #[test]
    fn a_seen_answer_steers_the_budget_within_bounds() {
        for took_ns in [0, 1, LEAST_NS, MOST_NS, u32::MAX] {
            let spin = eager();
            (0..256).for_each(|_| spin.aim(took_ns));
            assert!(spin.pays(), "after answers in {took_ns} ns");
            assert!(budget(&spin) <= MOST_NS, "after answers in {took_ns} ns");
        }
        let (fast, slow) = (eager(), eager());
        (0..256).for_each(|_| fast.aim(1));
        (0..256).for_each(|_| slow.aim(MOST_NS));
        assert!(budget(&fast) < budget(&slow));
    }

    #[test]
    fn one_core_or_a_refusal_disables_polling() {
        for spin in [Spin::new(1), Spin::never()] {
            spin.slept(SHORT_NS);
            spin.aim(1);
            spin.slept(0);
            assert_eq!(budget(&spin), 0);
            assert_eq!(glances(&spin), 1);
        }
    }
}
