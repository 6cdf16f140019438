//! Histograms of durations, as counts between fixed bounds.
//!
//! Invariant: all have the same bounds, so that they can be compared and added.

use std::time::Duration;

use hotmerge_meta::figures::Distribution;

/// Upper bounds in nanoseconds: from a call in the host's process to a drain that is overdue.
pub(crate) const BOUNDS: [u64; 27] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// One more than there are bounds, for values above all of them.
pub(crate) const COUNTS: usize = BOUNDS.len() + 1;

/// The index of the count to which a duration belongs.
pub(crate) fn index(ns: u64) -> usize {
    BOUNDS.partition_point(|bound| *bound < ns)
}

/// Nanoseconds, as many as fit.
pub(crate) fn ns(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// Counts as a distribution.
pub(crate) fn distribution(counts: &[u64; COUNTS], sum_ns: u64) -> Distribution {
    let bounds = BOUNDS.iter().map(|ns| *ns as f64 / 1e9);
    Distribution {
        sum: sum_ns as f64 / 1e9,
        buckets: bounds
            .chain([f64::INFINITY])
            .zip(counts.iter().copied())
            .collect(),
    }
}

/// A histogram of durations that are too rare to need atomic counts.
#[derive(Debug)]
pub(crate) struct Spread {
    counts: [u64; COUNTS],
    sum_ns: u64,
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            counts: [0; COUNTS],
            sum_ns: 0,
        }
    }
}

impl Spread {
    pub(crate) fn add(&mut self, took: Duration) {
        let ns = ns(took);
        self.counts[index(ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Adds a time in milliseconds, which a report has.
    pub(crate) fn add_ms(&mut self, ms: f64) {
        if let Ok(took) = Duration::try_from_secs_f64(ms / 1e3) {
            self.add(took);
        }
    }

    pub(crate) fn distribution(&self) -> Distribution {
        distribution(&self.counts, self.sum_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_below_its_upper_bound() {
        assert!(BOUNDS.is_sorted());
        assert_eq!((index(0), index(100), index(101)), (0, 0, 1));
        assert_eq!(index(u64::MAX), BOUNDS.len());
        let mut spread = Spread::default();
        spread.add(Duration::from_millis(3));
        spread.add_ms(3.0);
        spread.add_ms(f64::NAN);
        let shown = spread.distribution();
        assert_eq!(shown.count(), 2);
        let (bound, count) = shown.buckets[14];
        assert_eq!((bound, count), (0.005, 2));
        assert!((shown.sum - 0.006).abs() < 1e-9, "{shown:?}");
    }
}
