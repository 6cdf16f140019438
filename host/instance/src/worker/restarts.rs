//! How often an instance that crashes is replaced, and when that is given up.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use hotmerge_meta::{PluginName, count};

use crate::{failure::Failure, settings::RestartConfig};

/// Longest pause between two replacements.
const LONGEST: Duration = Duration::from_secs(2);

/// What follows from a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Replace it after this pause.
    After(Duration),
    /// Give up.
    Enough,
}

/// The crashes of late.
#[derive(Debug)]
pub struct Restarts {
    config: RestartConfig,
    recent: VecDeque<Instant>,
}

impl Restarts {
    /// No crash so far.
    pub fn new(config: RestartConfig) -> Self {
        Self {
            config,
            recent: VecDeque::new(),
        }
    }

    /// Counts a crash.
    pub fn crashed(&mut self, now: Instant) -> Verdict {
        let window = Duration::from_secs(self.config.within_s);
        while self
            .recent
            .front()
            .is_some_and(|first| now.duration_since(*first) > window)
        {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.config.most as usize {
            self.recent.clear();
            return Verdict::Enough;
        }
        let before = self.recent.len() as u32;
        self.recent.push_back(now);
        let pause = match before {
            0 => Duration::ZERO,
            more => {
                Duration::from_millis(self.config.pause_ms)
                    * 2_u32.saturating_pow((more - 1).min(16))
            }
        };
        Verdict::After(pause.min(LONGEST))
    }
}

/// Why something is not started again.
pub fn too_often(config: RestartConfig, plugin: &PluginName, last: &Failure) -> String {
    format!(
        "it crashed more than {} in {} s; the host starts it again only for a new \
         version or for `hotmerge reload {plugin}`; the last time it {last}",
        count(config.most.into(), "time"),
        config.within_s
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_crash_in_ten_seconds_is_final() {
        let mut restarts = Restarts::new(RestartConfig::default());
        let now = Instant::now();
        let pauses: Vec<_> = (0..6).map(|_| restarts.crashed(now)).collect();
        let after = |ms| Verdict::After(Duration::from_millis(ms));
        assert_eq!(
            pauses[..5],
            [after(0), after(20), after(40), after(80), after(160)]
        );
        assert_eq!(pauses[5], Verdict::Enough);
    }

    #[test]
    fn crashes_that_are_long_ago_do_not_count() {
        let mut restarts = Restarts::new(RestartConfig::default());
        let mut now = Instant::now();
        for _ in 0..100 {
            assert_eq!(restarts.crashed(now), Verdict::After(Duration::ZERO));
            now += Duration::from_secs(11);
        }
    }
}
