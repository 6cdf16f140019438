//! Which calls are quick, and where calls run.
//!
//! A call of a method that has been quick runs on the thread that serves its connection: handing it to
//! another thread and its reply back costs more than such a call. It is a task of its own there, so
//! that another thread serves the connection meanwhile, and notices if the client disconnects. Every
//! other call runs on a thread of the pool.
//!
//! Invariant: one thread at least serves connections and runs no call, whatever plugins do; `watchdog`
//! wakes it if a call that was expected to be quick is not.
//!
//! Absent on purpose: exactness. Methods are told apart by a hash, and two may share a place: a call
//! that runs in the wrong place costs time, nothing else.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::{
    pool::on_a_thread,
    problem::Problem,
    watchdog::{Turn, Watchdog},
};

/// Methods that are told apart.
const METHODS: usize = 1 << 10;
/// What a call on another thread costs, at most, on a busy machine.
const QUICK: Duration = Duration::from_micros(200);
/// A single call counts as no longer than this: after one that hung, a few dozen quick ones bring the
/// average back.
const LONGEST: Duration = Duration::from_millis(20);

/// How long calls take, and who runs them.
#[derive(Debug)]
pub(super) struct Quick {
    methods: Box<[Average]>,
    hasher: RandomState,
    watchdog: Watchdog,
}

/// The moving average of a method's calls, in nanoseconds. A method that was never called counts as slow.
#[derive(Debug)]
struct Average(AtomicU32);

impl Quick {
    /// For a runtime with so many threads that serve connections.
    pub(super) fn new(threads: usize, runtime: Handle) -> std::io::Result<Self> {
        Ok(Self {
            methods: (0..METHODS).map(|_| Average::new()).collect(),
            hasher: RandomState::new(),
            watchdog: Watchdog::start(threads.saturating_sub(1), runtime)?,
        })
    }

    /// Runs a call where it suits its method.
    pub(super) async fn run<T, F>(
        self: &Arc<Self>,
        plugin: &str,
        method: &str,
        call: F,
    ) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let place = self.hasher.hash_one((plugin, method)) as usize % METHODS;
        let quick = Arc::clone(self);
        let is_quick = self.methods[place].is_quick();
        let timed = move || {
            let began = Instant::now();
            let outcome = call();
            quick.methods[place].add(began.elapsed());
            outcome
        };
        if !is_quick {
            return on_a_thread(timed).await;
        }
        let quick = Arc::clone(self);
        let here = async move {
            match quick.watchdog.turn() {
                Some(turn) => Ok(during(turn, timed)),
                None => on_a_thread(timed).await,
            }
        };
        tokio::spawn(here).await.map_err(Problem::internal)?
    }
}

fn during<T>(turn: Turn<'_>, run: impl FnOnce() -> T) -> T {
    let outcome = run();
    drop(turn);
    outcome
}

impl Average {
    fn new() -> Self {
        Self(AtomicU32::new(ns(LONGEST)))
    }

    fn is_quick(&self) -> bool {
        self.0.load(Ordering::Relaxed) < ns(QUICK)
    }

    /// Counts a call. One of two at the same moment may be lost.
    fn add(&self, took: Duration) {
        let took = ns(took.min(LONGEST));
        let before = self.0.load(Ordering::Relaxed);
        self.0
            .store(before - before / 8 + took / 8, Ordering::Relaxed);
    }
}

fn ns(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many calls of this length it takes until the next one counts as quick.
    fn calls_until_quick(average: &Average, took: Duration) -> usize {
        (0..)
            .take_while(|_| {
                let is_slow = !average.is_quick();
                average.add(took);
                is_slow
            })
            .count()
    }

    #[test]
    fn only_what_has_been_quick_counts_as_quick() {
        let average = Average::new();
        assert!(!average.is_quick(), "nothing is known of it");
        let calls = calls_until_quick(&average, Duration::from_micros(2));
        assert!((8..64).contains(&calls), "{calls} calls");
        // Some that hung.
        (0..8).for_each(|_| average.add(Duration::from_secs(3600)));
        assert!(!average.is_quick());
        let calls = calls_until_quick(&average, Duration::from_micros(2));
        assert!((8..64).contains(&calls), "{calls} calls");
    }

    #[test]
    fn an_interrupted_quick_call_stays_quick() {
        let average = Average::new();
        (0..64).for_each(|_| average.add(Duration::from_micros(2)));
        average.add(Duration::from_millis(1));
        assert!(average.is_quick());
        (0..64).for_each(|_| average.add(Duration::from_millis(1)));
        assert!(!average.is_quick());
    }
}
