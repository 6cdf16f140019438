//! Short-lived threads that bring candidates up, no more at once than there are cores.
//!
//! A thread ends when there is nothing left to do: whatever a plugin leaves in its
//! thread-locals goes with it, and an idle host keeps none. A job that takes too long is
//! written off, so that it cannot keep others from starting.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::lifecycle::Ticket;

#[derive(Debug)]
pub(crate) struct Jobs {
    state: Mutex<State>,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Ticket>,
    running: usize,
    written_off: HashSet<Ticket>,
}

impl Jobs {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            limit: thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// Queues a job. `spawn` starts a thread that calls [`Jobs::work`], if one is needed.
    pub(crate) fn submit(&self, ticket: Ticket, spawn: impl FnOnce()) {
        let mut state = self.lock();
        state.queue.push_back(ticket);
        if state.running < self.limit {
            state.running += 1;
            drop(state);
            spawn();
        }
    }

    /// Runs jobs until there are none.
    pub(crate) fn work(&self, run: impl Fn(Ticket)) {
        loop {
            let mut state = self.lock();
            let Some(ticket) = state.queue.pop_front() else {
                state.running -= 1;
                return;
            };
            drop(state);
            run(ticket);
            if self.lock().written_off.remove(&ticket) {
                return;
            }
        }
    }

    /// Gives a job's place to others. `spawn` as in [`Jobs::submit`].
    pub(crate) fn write_off(&self, ticket: Ticket, spawn: impl FnOnce()) {
        let mut state = self.lock();
        if !state.written_off.insert(ticket) {
            return;
        }
        if state.queue.is_empty() {
            state.running -= 1;
        } else {
            drop(state);
            spawn();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
