//! Calls that never stop, while a test does something to the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use hotmerge_meta::control::Client;

use crate::{SOON, TestHost, host};

/// The results of the callers of one plugin.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many replies.
    pub replies: u64,
    /// Why calls failed.
    pub failures: Vec<String>,
    /// Which generations answered.
    pub generations: BTreeSet<u64>,
    /// The answers.
    pub answers: BTreeSet<Vec<u8>>,
}

/// Threads that call plugins until this is dropped.
#[derive(Debug)]
pub struct Callers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    plugins: Vec<String>,
    method: String,
    tallies: Mutex<BTreeMap<String, Tally>>,
    counted: Condvar,
    stop: AtomicBool,
}

impl Callers {
    /// Calls `method` of each plugin in turn, on `threads` connections, and waits until each
    /// has answered once.
    #[track_caller]
    pub fn start<'a>(
        host: &TestHost,
        threads: usize,
        plugins: impl IntoIterator<Item = &'a str>,
        method: &str,
    ) -> Self {
        let shared = Arc::new(Shared {
            plugins: plugins.into_iter().map(str::to_owned).collect(),
            method: method.to_owned(),
            tallies: Mutex::default(),
            counted: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let threads = (0..threads).map(|_| {
            let (shared, client) = (Arc::clone(&shared), host.client());
            thread::spawn(move || shared.call(client))
        });
        let callers = Self {
            threads: threads.collect(),
            shared,
        };
        callers.go_on();
        callers
    }

    /// Waits until each plugin has been called once more.
    ///
    /// # Panics
    /// If calls do not go on.
    #[track_caller]
    pub fn go_on(&self) {
        let before = self.tallies();
        let count = |tallies: &BTreeMap<String, Tally>, plugin: &String| {
            tallies
                .get(plugin)
                .map_or(0, |tally| tally.replies + tally.failures.len() as u64)
        };
        let deadline = Instant::now() + SOON;
        let mut now = self.shared.lock();
        // The second call after `before` was taken has begun after it.
        while !self.shared.plugins.iter().all(|plugin| {
            count(&now, plugin) >= count(&before, plugin) + 1 + self.threads.len() as u64
        }) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "calls do not go on: {now:#?}");
            let waited = self.shared.counted.wait_timeout(now, left);
            now = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The results so far.
    pub fn tallies(&self) -> BTreeMap<String, Tally> {
        self.shared.lock().clone()
    }

    /// Stops the callers and returns their results.
    ///
    /// # Panics
    /// If a call failed.
    #[track_caller]
    pub fn unharmed(mut self) -> BTreeMap<String, Tally> {
        self.go_on();
        self.shut();
        let tallies = self.tallies();
        for (plugin, tally) in &tallies {
            assert!(
                tally.failures.is_empty(),
                "of the calls of `{plugin}` {} failed: {}",
                tally.failures.len(),
                tally.failures[0]
            );
        }
        tallies
    }

    fn shut(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let joined = thread.join();
            if !thread::panicking() {
                joined.expect("a caller does not panic");
            }
        }
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.shut();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, mut client: Client) {
        while !self.stop.load(Ordering::Relaxed) {
            for plugin in &self.plugins {
                let outcome = host::call(&mut client, plugin, &self.method, b"");
                let mut tallies = self.lock();
                let tally = tallies.entry(plugin.clone()).or_default();
                match outcome {
                    Ok(reply) => {
                        tally.replies += 1;
                        tally.generations.insert(reply.generation);
                        tally.answers.insert(reply.output_base64.0);
                    }
                    Err(error) => tally.failures.push(error.to_string()),
                }
                drop(tallies);
                self.counted.notify_all();
            }
        }
    }
}
