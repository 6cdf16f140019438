//! The host's only timer: it sleeps until something is due, or forever.
//!
//! Absent on purpose: what is due when, which `alarms` decides.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::alarms::{Alarms, Next};

pub(crate) use super::alarms::Tick;

/// How soon the clock checks again while work with a deadline is in progress.
pub(crate) const RECHECK: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(crate) struct Clock {
    state: Mutex<Alarms>,
    changed: Condvar,
}

impl Clock {
    /// Takes a hint: the directory may have changed.
    pub(crate) fn hint(&self) {
        let is_first = self.lock().hint(Instant::now());
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Makes sure that the clock wakes at `due` or earlier.
    pub(crate) fn wake_at(&self, due: Instant) {
        let is_earlier = self.lock().wake_at(due);
        if is_earlier {
            self.changed.notify_one();
        }
    }

    /// Makes sure that everything is scanned within `period` from now.
    pub(crate) fn full_within(&self, period: Duration) {
        let is_earlier = self.lock().full_at(Instant::now() + period);
        if is_earlier {
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
        self.lock().stop();
        self.changed.notify_one();
    }

    /// Waits for the next reason to wake; `None` when the host stops.
    fn next(&self) -> Option<Tick> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            state = match state.next(now) {
                Next::Stop => return None,
                Next::Tick(tick) => return Some(tick),
                Next::At(next) => {
                    self.changed
                        .wait_timeout(state, next - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                Next::Never => self
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
