//! What is due when: the clock's decisions as a pure function of the time.
//!
//! Invariants: a hint leads to a scan within [`PATIENCE`], however many follow it, and within [`QUIET`] of the
//! last one of its burst. A requested time and a scan of everything are never put off by hints: each kind of
//! tick does what the ones below it do.
//!
//! Absent on purpose: waiting, locks.

use std::time::{Duration, Instant};

/// A scan waits until no hint has come for this long …
const QUIET: Duration = Duration::from_millis(20);
/// … but at most this long in total.
const PATIENCE: Duration = Duration::from_millis(200);

/// What was requested and has not been due yet.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    burst: Option<Burst>,
    due: Option<Instant>,
    /// When to scan everything, whatever happened.
    full: Option<Instant>,
    is_stopped: bool,
}

/// Hints that lead to one scan.
#[derive(Clone, Copy, Debug)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    fn end(self) -> Instant {
        (self.last + QUIET).min(self.first + PATIENCE)
    }
}

/// Why the clock wakes. Each kind includes those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    /// Time to scan everything, with or without a hint.
    Full,
    /// A burst of hints has ended: scan what is dirty.
    Hinted,
    /// A requested time has come.
    Due,
}

/// What the clock does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Tick(Tick),
    /// Wait until then.
    At(Instant),
    /// Wait until something is requested.
    Never,
    Stop,
}

impl Alarms {
    /// Takes a hint. Returns whether it begins a burst, so that the waiting thread must wake earlier.
    pub(super) fn hint(&mut self, now: Instant) -> bool {
        let first = self.burst.map_or(now, |burst| burst.first);
        self.burst.replace(Burst { first, last: now }).is_none()
    }

    /// Requests a tick at `due` or earlier. Returns whether that is earlier than before.
    pub(super) fn wake_at(&mut self, due: Instant) -> bool {
        bring_forward(&mut self.due, due)
    }

    /// Requests a scan of everything at `due` or earlier. Returns whether that is earlier than before.
    pub(super) fn full_at(&mut self, due: Instant) -> bool {
        bring_forward(&mut self.full, due)
    }

    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// What to do at this time. A tick clears the requests that it fulfils: callers that need another must
    /// request it again.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.is_stopped {
            return Next::Stop;
        }
        let hinted = self.burst.map(Burst::end);
        let is_over = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        let tick = if is_over(self.full) {
            Tick::Full
        } else if is_over(hinted) {
            Tick::Hinted
        } else if is_over(self.due) {
            Tick::Due
        } else {
            let next = [hinted, self.full, self.due].into_iter().flatten().min();
            return next.map_or(Next::Never, Next::At);
        };
        if tick == Tick::Full {
            self.full = None;
        }
        if is_over(hinted) {
            self.burst = None;
        }
        if is_over(self.due) {
            self.due = None;
        }
        Next::Tick(tick)
    }
}

fn bring_forward(time: &mut Option<Instant>, due: Instant) -> bool {
    let is_earlier = time.is_none_or(|other| due < other);
    if is_earlier {
        *time = Some(due);
    }
    is_earlier
}

#[cfg(test)]
mod tests;
