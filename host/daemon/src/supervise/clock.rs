//! The host's only timer: it sleeps until something is due, or forever.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The host waits until no hint has come for this long …
const QUIET: Duration = Duration::from_millis(20);
/// … but at most this long in total.
const PATIENCE: Duration = Duration::from_millis(200);

/// How soon the clock checks again while work with a deadline is in progress.
pub(crate) const RECHECK: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(crate) struct Clock {
    state: Mutex<Alarms>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Alarms {
    hinted: Option<(Instant, Instant)>,
    due: Option<Instant>,
    /// When to look at everything, whatever happened.
    full: Option<Instant>,
    stop: bool,
}

/// Why the clock woke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    /// A burst of hints has ended: look at what is dirty.
    Hinted,
    /// A requested time has come.
    Due,
    /// Time to look at everything, with or without a hint.
    Full,
}

impl Clock {
    /// Takes a hint: the directory may have changed.
    pub(crate) fn hint(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let first = state.hinted.map_or(now, |(first, _)| first);
        let was_quiet = state.hinted.replace((first, now)).is_none();
        drop(state);
        if was_quiet {
            self.changed.notify_one();
        }
    }

    /// Makes sure that the clock wakes at `due` or earlier.
    pub(crate) fn wake_at(&self, due: Instant) {
        let mut state = self.lock();
        if state.due.is_none_or(|other| due < other) {
            state.due = Some(due);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Makes sure that everything is looked at within `period` from now.
    pub(crate) fn full_within(&self, period: Duration) {
        let latest = Instant::now() + period;
        let mut state = self.lock();
        if state.full.is_none_or(|other| latest < other) {
            state.full = Some(latest);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Calls `tick` whenever something is due, until stopped.
    pub(crate) fn run(&self, tick: impl Fn(Tick)) {
        while let Some(due) = self.next() {
            tick(due);
        }
    }

    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_one();
    }

    /// Waits for the next reason to wake; `None` when the host stops. `Due` and `Full` clear the
    /// requested time: callers that need another must request it again.
    fn next(&self) -> Option<Tick> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            let now = Instant::now();
            let rest = state
                .hinted
                .map(|(first, last)| (last + QUIET).min(first + PATIENCE));
            if rest.is_some_and(|rest| rest <= now) {
                state.hinted = None;
                return Some(Tick::Hinted);
            }
            if state.full.is_some_and(|full| full <= now) {
                state.full = None;
                return Some(Tick::Full);
            }
            if state.due.is_some_and(|due| due <= now) {
                state.due = None;
                return Some(Tick::Due);
            }
            let alarms = [rest, state.full, state.due];
            state = match alarms.into_iter().flatten().min() {
                Some(next) => {
                    self.changed
                        .wait_timeout(state, next - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Alarms> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
