//! How long to look before sleeping: about as long as the other side took of late.
//!
//! A wake-up costs some 20 to 40 µs, an answer to a small call less than one. Whoever waits
//! for an answer that comes soon does better to look for it; whoever waits for one that takes
//! long only burns a core. The budget follows what was seen and falls to nothing when
//! looking does not pay.

use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use crate::now_ns;

/// Longest look, in nanoseconds: about what the wake-ups of both sides cost that it spares.
const MOST_NS: u32 = 100_000;
/// Shortest look that is worth its while.
const LEAST_NS: u32 = 2_000;
/// Glances between two looks at the clock.
const GLANCES: u32 = 16;

#[derive(Debug)]
pub(crate) struct Spin {
    budget_ns: AtomicU32,
    most_ns: u32,
}

impl Spin {
    pub(crate) fn new() -> Self {
        // With one core the other side cannot get on while this one looks.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            budget_ns: AtomicU32::new(0),
            most_ns: if cores > 1 { MOST_NS } else { 0 },
        }
    }

    /// For a side that must not be made to look.
    pub(crate) fn never() -> Self {
        Self {
            budget_ns: AtomicU32::new(0),
            most_ns: 0,
        }
    }

    /// Whether looking has been worth its while of late.
    pub(crate) fn pays(&self) -> bool {
        self.budget_ns.load(Ordering::Relaxed) >= LEAST_NS
    }

    /// Looks until `done` or the budget is used up. Returns whether it was done.
    pub(crate) fn look(&self, done: impl Fn() -> bool) -> bool {
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

    /// Learns how long a sleep took that a look had not spared.
    pub(crate) fn slept(&self, ns: u64) {
        let budget = self.budget_ns.load(Ordering::Relaxed);
        let next = if ns < u64::from(2 * MOST_NS) {
            (budget * 2).max(2 * LEAST_NS).min(self.most_ns)
        } else {
            budget / 2
        };
        self.budget_ns.store(next, Ordering::Relaxed);
    }

    /// Steers the budget to a few times what a look took.
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
