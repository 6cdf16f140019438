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

use hotmerge_meta::PluginName;

use crate::lifecycle::Ticket;

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Take an attempt as far as it goes.
    BringUp(Ticket),
    /// Write down what runs of a plugin.
    Keep(PluginName),
}

#[derive(Debug)]
pub(crate) struct Jobs {
    state: Mutex<State>,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Job>,
    running: usize,
    /// Attempts that a thread is busy with and that were not written off.
    current: HashSet<Ticket>,
}

impl Jobs {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            limit: thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// Queues a job. `spawn` starts a thread that calls [`Jobs::work`], if one is needed.
    pub(crate) fn submit(&self, job: Job, spawn: impl FnOnce()) {
        let mut state = self.lock();
        state.queue.push_back(job);
        if state.running < self.limit {
            state.running += 1;
            drop(state);
            spawn();
        }
    }

    /// Runs jobs until there are none.
    pub(crate) fn work(&self, run: impl Fn(&Job)) {
        loop {
            let mut state = self.lock();
            let Some(job) = state.queue.pop_front() else {
                state.running -= 1;
                return;
            };
            if let Job::BringUp(ticket) = job {
                state.current.insert(ticket);
            }
            drop(state);
            run(&job);
            if let Job::BringUp(ticket) = job
                && !self.lock().current.remove(&ticket)
            {
                // Another thread has its place already.
                return;
            }
        }
    }

    /// Gives a job's place to others. `spawn` as in [`Jobs::submit`].
    pub(crate) fn write_off(&self, ticket: Ticket, spawn: impl FnOnce()) {
        let mut state = self.lock();
        if !state.current.remove(&ticket) {
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
