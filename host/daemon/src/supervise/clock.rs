//! The host's one timer: it sleeps until something is due, and for ever if nothing is.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A burst of hints is let come to rest for this long …
const QUIET: Duration = Duration::from_millis(20);
/// … but waited for no longer than this.
const PATIENCE: Duration = Duration::from_millis(200);

/// How soon the clock looks again while something that it must not miss is under way.
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
    stop: bool,
}

/// Why the clock woke.
#[derive(Debug, PartialEq, Eq)]
enum Tick {
    /// Hints have come to rest: look at the directory.
    Hinted,
    /// A point in time that was asked for has come.
    Due,
    /// The host stops.
    Stop,
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

    /// Makes sure that the clock wakes at `due` or before.
    pub(crate) fn wake_at(&self, due: Instant) {
        let mut state = self.lock();
        if state.due.is_none_or(|other| due < other) {
            state.due = Some(due);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Calls `tick` whenever something is due, and every `period`, until it is told to stop.
    pub(crate) fn run(&self, period: Option<Duration>, tick: impl Fn()) {
        let mut next = period.map(|period| Instant::now() + period);
        if let Some(next) = next {
            self.wake_at(next);
        }
        while self.next() != Tick::Stop {
            tick();
            if let (Some(due), Some(period)) = (next, period) {
                let now = Instant::now();
                let due = if now >= due { now + period } else { due };
                next = Some(due);
                self.wake_at(due);
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_one();
    }

    /// Waits for the next reason to wake. `Due` forgets the point in time: whoever still
    /// needs one asks anew.
    fn next(&self) -> Tick {
        let mut state = self.lock();
        loop {
            if state.stop {
                return Tick::Stop;
            }
            let now = Instant::now();
            let rest = state
                .hinted
                .map(|(first, last)| (last + QUIET).min(first + PATIENCE));
            if rest.is_some_and(|rest| rest <= now) {
                state.hinted = None;
                return Tick::Hinted;
            }
            if state.due.is_some_and(|due| due <= now) {
                state.due = None;
                return Tick::Due;
            }
            state = match [rest, state.due].into_iter().flatten().min() {
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
