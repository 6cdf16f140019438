//! Short-lived threads that bring candidates up and persist records.
//!
//! There is one place per core. A job that takes long, usually because it waits for a plugin, gives its
//! place to the next one and continues beside it, so that a hanging plugin delays no other. At most
//! [`MOST_BESIDE`] do so, because each may hold a worker and its memory.
//!
//! A thread ends when no job is left: a plugin's thread-locals go away with it, and an idle
//! host has no such threads. A job that takes too long is written off, so that it cannot block
//! other jobs.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use hotmerge_meta::{PluginName, count};

use hotmerge_lifecycle::Ticket;

/// How long a job keeps its place while others wait: ten times what a worker's start takes.
pub(crate) const KEEPS_PLACE: Duration = Duration::from_millis(50);

/// Most jobs that continue without a place.
const MOST_BESIDE: usize = 64;

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Advance an attempt of a plugin as far as possible.
    BringUp(PluginName, Ticket),
    /// Persist a plugin's record.
    Persist(PluginName),
}

impl Job {
    /// Its plugin.
    pub(crate) fn plugin(&self) -> &PluginName {
        match self {
            Self::BringUp(plugin, _) | Self::Persist(plugin) => plugin,
        }
    }

    fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::BringUp(_, ticket) => Some(*ticket),
            Self::Persist(_) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Jobs {
    state: Mutex<Queue>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// Number of threads that have a place.
    running: usize,
    /// What threads are doing, without jobs that were written off. An attempt's next run may begin
    /// shortly before its previous one has ended.
    current: BTreeMap<u64, Run>,
    runs: u64,
}

#[derive(Debug)]
struct Run {
    /// Its attempt, if it has one.
    ticket: Option<Ticket>,
    began: Instant,
    has_place: bool,
}

impl Queue {
    fn beside(&self) -> usize {
        self.current.values().filter(|run| !run.has_place).count()
    }

    /// Frees a place; returns whether using it needs a new thread.
    fn free_place(&mut self) -> bool {
        if self.waiting.is_empty() {
            self.running -= 1;
            return false;
        }
        true
    }
}

/// A job waits for a place.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Waits;

impl Jobs {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            limit: thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// Queues a job. `spawn` starts a thread that calls [`Jobs::work`], if one is needed. If there is no
    /// place, call [`Jobs::make_room`] after [`KEEPS_PLACE`].
    pub(crate) fn submit(&self, job: Job, spawn: impl FnOnce()) -> Option<Waits> {
        let mut state = self.lock();
        state.waiting.push_back(job);
        if state.running >= self.limit {
            return Some(Waits);
        }
        state.running += 1;
        drop(state);
        spawn();
        None
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
            let begun = Run {
                ticket: job.ticket(),
                began: Instant::now(),
                has_place: true,
            };
            state.current.insert(number, begun);
            drop(state);
            run(&job);
            // Otherwise another thread already has its place.
            let ended = self.lock().current.remove(&number);
            if !ended.is_some_and(|run| run.has_place) {
                return;
            }
        }
    }

    /// Takes the places of slow jobs for those that wait. `spawn` is as in [`Jobs::submit`], once per
    /// place, for the plugin of a waiting job. Returns when to call it again, if any job still waits.
    pub(crate) fn make_room(
        &self,
        now: Instant,
        spawn: impl FnMut(&PluginName),
    ) -> Option<Instant> {
        let mut state = self.lock();
        let room = MOST_BESIDE.saturating_sub(state.beside());
        let Queue {
            waiting, current, ..
        } = &mut *state;
        let is_long = |run: &&mut Run| run.has_place && run.began + KEEPS_PLACE <= now;
        let long = current.values_mut().filter(is_long).take(room);
        let served: Vec<_> = waiting
            .iter()
            .zip(long)
            .map(|(job, run)| {
                run.has_place = false;
                job.plugin().clone()
            })
            .collect();
        let still_waits = !waiting.is_empty();
        drop(state);
        served.iter().for_each(spawn);
        still_waits.then_some(now + KEEPS_PLACE)
    }

    /// Why an attempt has not started, if it waits for a place.
    pub(crate) fn waiting(&self, ticket: Ticket) -> Option<String> {
        let state = self.lock();
        let mut waiting = state.waiting.iter();
        let before = waiting.position(|job| job.ticket() == Some(ticket))?;
        let busy = state.current.len();
        // Otherwise it only waits for its thread.
        (busy >= self.limit).then(|| {
            let busy = count(busy as u64, "version");
            format!("the host starts {busy} at this moment; waiting before this one: {before}")
        })
    }

    /// Frees the place of a job that is given up. `spawn` is as in [`Jobs::submit`].
    pub(crate) fn write_off(&self, ticket: Ticket, spawn: impl FnOnce()) {
        let mut state = self.lock();
        let mut runs = state.current.iter().rev();
        let Some(number) = runs
            .find(|(_, it)| it.ticket == Some(ticket))
            .map(|(number, _)| *number)
        else {
            return;
        };
        let given_up = state.current.remove(&number);
        if given_up.is_some_and(|run| run.has_place) && state.free_place() {
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

    fn bring_up(ticket: u64) -> Job {
        let plugin = "plugin".parse().expect("it is a name");
        Job::BringUp(plugin, Ticket(ticket))
    }

    fn submit(jobs: &Jobs, ticket: u64, spawn: impl FnOnce()) -> Option<Waits> {
        jobs.submit(bring_up(ticket), spawn)
    }

    /// Long after now.
    fn later() -> Instant {
        Instant::now() + 2 * KEEPS_PLACE
    }

    #[test]
    fn a_slow_job_lets_the_next_begin() {
        let jobs = jobs(1);
        let threads = Cell::new(0);
        let spawn = || threads.set(threads.get() + 1);
        assert_eq!(submit(&jobs, 1, spawn), None);
        let begun = Cell::new(0);
        jobs.work(|_| {
            begun.set(begun.get() + 1);
            if begun.get() > 1 {
                return;
            }
            assert_eq!(submit(&jobs, 2, spawn), Some(Waits));
            let early = jobs.make_room(Instant::now(), |_| spawn());
            assert!(early.is_some() && threads.get() == 1);
            assert!(jobs.waiting(Ticket(2)).is_some());
            jobs.make_room(later(), |_| spawn());
            assert_eq!(threads.get(), 2);
            // The new thread.
            jobs.work(|_| begun.set(2));
            assert_eq!(jobs.make_room(later(), |_| spawn()), None, "nothing waits");
        });
        assert_eq!((begun.get(), threads.get()), (2, 2));
        let state = jobs.lock();
        assert!(state.current.is_empty() && state.running == 0);
    }

    /// Starts as many jobs as may run, each within the previous one, which then ends after it.
    fn begin_within(jobs: &Jobs, threads: &Cell<usize>) {
        jobs.work(|_| {
            let spawn = |_: &PluginName| threads.set(threads.get() + 1);
            let begun = threads.get();
            assert!(jobs.make_room(later(), spawn).is_some());
            if threads.get() > begun {
                return begin_within(jobs, threads);
            }
            assert_eq!(begun, MOST_BESIDE + 1, "beside one with a place");
            assert_eq!(jobs.lock().waiting.len(), 1);
            jobs.write_off(Ticket(0), || unreachable!("it has no place"));
            jobs.make_room(later(), spawn);
            assert_eq!(threads.get(), MOST_BESIDE + 2);
            jobs.work(|_| {});
        });
    }

    #[test]
    fn slow_jobs_beside_the_others_are_bounded() {
        let jobs = jobs(1);
        let threads = Cell::new(0);
        for ticket in 0..MOST_BESIDE as u64 + 2 {
            let _ = submit(&jobs, ticket, || threads.set(threads.get() + 1));
        }
        begin_within(&jobs, &threads);
        let state = jobs.lock();
        assert!(state.current.is_empty() && state.waiting.is_empty() && state.running == 0);
    }

    #[test]
    fn an_abandoned_job_frees_its_slot() {
        let jobs = jobs(1);
        let threads = Cell::new(0);
        let spawn = || threads.set(threads.get() + 1);
        let first = Ticket(1);
        assert_eq!(submit(&jobs, 1, spawn), None);
        assert_eq!(threads.get(), 1);
        jobs.work(|_| {
            assert_eq!(submit(&jobs, 2, || {}), Some(Waits));
            jobs.write_off(first, spawn);
            jobs.write_off(first, spawn);
        });
        assert_eq!(threads.get(), 2, "once, and the thread that hung is done");
        assert_eq!(jobs.lock().waiting, [bring_up(2)]);
    }

    #[test]
    fn overlapping_runs_of_an_attempt_leak_no_slot() {
        let jobs = jobs(2);
        assert_eq!(submit(&jobs, 1, || {}), None);
        let nested = Cell::new(false);
        jobs.work(|_| {
            if !nested.replace(true) {
                // Another thread starts the next run before this one has ended.
                assert_eq!(submit(&jobs, 1, || {}), None);
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
            let _ = submit(&jobs, number, || threads += 1);
        }
        assert_eq!(threads, LIMIT);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // Each waits for the others of its round: with fewer at once it would never continue.
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
