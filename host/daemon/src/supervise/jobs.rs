//! Short-lived threads that bring candidates up and persist records, at most one per core.
//!
//! A thread ends when no job is left: a plugin's thread-locals go away with it, and an idle
//! host has no such threads. A job that takes too long is written off, so that it cannot block
//! other jobs.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use hotmerge_meta::PluginName;

use hotmerge_lifecycle::Ticket;

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Advance an attempt as far as possible.
    BringUp(Ticket),
    /// Persist a plugin's record.
    Persist(PluginName),
}

#[derive(Debug)]
pub(crate) struct Jobs {
    state: Mutex<Queue>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Job>,
    running: usize,
    /// Runs of attempts that a thread is busy with and that were not written off. An
    /// attempt's next run may begin a moment before the one before has ended.
    current: BTreeMap<u64, Ticket>,
    runs: u64,
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
        state.waiting.push_back(job);
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
            let Some(job) = state.waiting.pop_front() else {
                state.running -= 1;
                return;
            };
            state.runs += 1;
            let number = state.runs;
            if let Job::BringUp(ticket) = job {
                state.current.insert(number, ticket);
            }
            drop(state);
            run(&job);
            if matches!(job, Job::BringUp(_)) && self.lock().current.remove(&number).is_none() {
                // Another thread already has its slot.
                return;
            }
        }
    }

    /// Frees a job's slot for others. `spawn` as in [`Jobs::submit`].
    pub(crate) fn write_off(&self, ticket: Ticket, spawn: impl FnOnce()) {
        let mut state = self.lock();
        let mut runs = state.current.iter().rev();
        let Some(number) = runs
            .find(|(_, it)| **it == ticket)
            .map(|(number, _)| *number)
        else {
            return;
        };
        state.current.remove(&number);
        if state.waiting.is_empty() {
            state.running -= 1;
        } else {
            drop(state);
            spawn();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use super::*;

    fn jobs(limit: usize) -> Jobs {
        Jobs {
            limit,
            ..Jobs::new()
        }
    }

    #[test]
    fn an_abandoned_job_frees_its_slot() {
        let jobs = jobs(1);
        let threads = Cell::new(0);
        let spawn = || threads.set(threads.get() + 1);
        let (first, second) = (Ticket(1), Ticket(2));
        jobs.submit(Job::BringUp(first), spawn);
        assert_eq!(threads.get(), 1);
        jobs.work(|_| {
            jobs.submit(Job::BringUp(second), || {});
            jobs.write_off(first, spawn);
            jobs.write_off(first, spawn);
        });
        assert_eq!(threads.get(), 2, "once, and the thread that hung is done");
        assert_eq!(jobs.lock().waiting, [Job::BringUp(second)]);
    }

    #[test]
    fn overlapping_runs_of_an_attempt_leak_no_slot() {
        let jobs = jobs(2);
        let ticket = Ticket(1);
        jobs.submit(Job::BringUp(ticket), || {});
        let nested = Cell::new(false);
        jobs.work(|_| {
            if !nested.replace(true) {
                // Another thread takes the next run before this one has ended.
                jobs.submit(Job::BringUp(ticket), || {});
                jobs.work(|_| {});
            }
        });
        let state = jobs.lock();
        assert!(state.current.is_empty() && state.waiting.is_empty());
        assert_eq!(state.running, 0);
    }

    #[test]
    fn jobs_run_concurrently_up_to_the_limit() {
        const LIMIT: usize = 3;
        let jobs = jobs(LIMIT);
        let mut threads = 0;
        for number in 0..4 * LIMIT as u64 {
            jobs.submit(Job::BringUp(Ticket(number)), || threads += 1);
        }
        assert_eq!(threads, LIMIT);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // Each waits for the others of its round: fewer at once would never go on.
        let round = Barrier::new(LIMIT);
        let run = |_: &Job| {
            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            round.wait();
            running.fetch_sub(1, Ordering::SeqCst);
            round.wait();
        };
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| jobs.work(run));
            }
        });
        assert_eq!(most.into_inner(), LIMIT);
        let state = jobs.lock();
        assert!(state.waiting.is_empty() && state.running == 0);
    }
}
