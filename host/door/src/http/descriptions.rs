//! The descriptions that plugins give of themselves, requested once per version.
//!
//! To describe itself a plugin runs code, and readers of the document must not make it do so again
//! and again: a description is kept for the version that gave it, a failure for half a minute, and
//! there is one request at a time per version. Each runs on a thread of its own, so that a plugin that
//! hangs takes none from the calls.
//!
//! Absent on purpose: who may read it, and the document.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hotmerge_daemon::Host;
use hotmerge_meta::control::{Description, PluginStatus};
use tokio::sync::watch;

use super::operations::{self, Operations};
use crate::description::{self, Undescribed};

/// How long a request waits for all plugins that have not described themselves yet.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How long it waits for one of them.
const PATIENCE_EACH: Duration = Duration::from_millis(500);

/// The most plugins that are asked at a time: more than hang.
const MOST: usize = 8;

const LATE: &str = "it has not described itself yet; try again";

/// When a plugin that failed is asked again.
const RETRY: Duration = Duration::from_secs(30);

/// A plugin's description, and its methods as the document has them.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) description: Description,
    pub(super) operations: Operations,
}

/// The outcome of the request to describe itself.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It does not describe itself, or no version of it takes calls.
    Nothing,
    Described(Arc<Described>),
    /// Why there is none, which it should have.
    Failed(Arc<str>),
}

impl PartialEq for Outcome {
    /// Whether they come from one request, or say the same.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, Self::Nothing) => true,
            (Self::Described(one), Self::Described(other)) => Arc::ptr_eq(one, other),
            (Self::Failed(one), Self::Failed(other)) => one == other,
            _ => false,
        }
    }
}

#[derive(Debug)]
struct Known {
    generation: u64,
    /// None while the request runs.
    outcome: Option<Outcome>,
    at: Instant,
}

/// The outcomes of all plugins.
#[derive(Debug, Default)]
pub(super) struct Descriptions {
    known: Mutex<BTreeMap<String, Known>>,
    running: AtomicUsize,
    news: watch::Sender<()>,
}

impl Descriptions {
    /// The outcome for the plugin with this status; waits for it, but not beyond `until`.
    pub(super) async fn of(
        self: &Arc<Self>,
        host: &Arc<Host>,
        status: &PluginStatus,
        until: tokio::time::Instant,
    ) -> Outcome {
        if status.hash.is_none() {
            return Outcome::Nothing;
        }
        let mut news = self.news.subscribe();
        let (name, generation) = (&status.name, status.generation);
        if self.begin(name, generation) {
            self.start(host, name, generation);
        }
        let outcome = async {
            loop {
                if let Some(outcome) = self.outcome(name) {
                    return outcome;
                }
                // The sender lives as long as this.
                let _ = news.changed().await;
            }
        };
        let until = until.min(tokio::time::Instant::now() + PATIENCE_EACH);
        let outcome = tokio::time::timeout_at(until, outcome).await;
        outcome.unwrap_or_else(|_| Outcome::Failed(LATE.into()))
    }

    /// Asks it on a thread of its own.
    fn start(self: &Arc<Self>, host: &Arc<Host>, name: &str, generation: u64) {
        let (all, host, plugin) = (Arc::clone(self), Arc::clone(host), name.to_owned());
        let run = move || {
            let (answered, outcome) = ask(&host, &plugin, generation);
            all.learn(&plugin, generation, answered, outcome);
        };
        let thread = thread::Builder::new().name("describe".to_owned());
        if let Err(error) = thread.spawn(run) {
            let failed = format!("failed to start a thread to ask it: {error}");
            self.learn(name, generation, generation, Outcome::Failed(failed.into()));
        }
    }

    /// Forgets plugins that are not among these.
    pub(super) fn keep(&self, plugins: &[PluginStatus]) {
        let is_there = |name: &String| plugins.iter().any(|it| it.name == *name);
        self.lock().retain(|name, _| is_there(name));
    }

    /// Whether the caller is to start a request. Notes that it runs, then.
    fn begin(&self, name: &str, generation: u64) -> bool {
        let mut all = self.lock();
        let is_known = all.get(name).is_some_and(|it| {
            let is_settled = match &it.outcome {
                Some(Outcome::Failed(_)) => it.at.elapsed() < RETRY,
                _ => true,
            };
            it.generation == generation && is_settled
        });
        if is_known || self.running.load(Ordering::Relaxed) >= MOST {
            return false;
        }
        // Under the lock, so that no two threads count up at once.
        self.running.fetch_add(1, Ordering::Relaxed);
        let known = Known {
            generation,
            outcome: None,
            at: Instant::now(),
        };
        all.insert(name.to_owned(), known);
        true
    }

    /// Keeps the outcome of a request to one version, which another may have answered.
    fn learn(&self, name: &str, generation: u64, answered: u64, outcome: Outcome) {
        let mut all = self.lock();
        self.running.fetch_sub(1, Ordering::Relaxed);
        // There may be a request to another version since.
        if let Some(known) = all.get_mut(name).filter(|it| it.generation == generation) {
            *known = Known {
                generation: answered,
                outcome: Some(outcome),
                at: Instant::now(),
            };
        }
        drop(all);
        self.news.send_replace(());
    }

    fn outcome(&self, name: &str) -> Option<Outcome> {
        match self.lock().get(name) {
            Some(known) => known.outcome.clone(),
            // Too many others are being asked.
            None => Some(Outcome::Failed(LATE.into())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The version that answered, which may be a newer one, and the outcome.
fn ask(host: &Host, name: &str, generation: u64) -> (u64, Outcome) {
    let Some(plugin) = host.plugin(name) else {
        return (generation, Outcome::Nothing);
    };
    match description::of(&plugin) {
        Ok((answered, description)) => {
            let operations = operations::of(name, &description);
            let described = Described {
                description,
                operations,
            };
            (answered.generation, Outcome::Described(Arc::new(described)))
        }
        Err(Undescribed::Nothing(_)) => (generation, Outcome::Nothing),
        Err(failed) => (generation, Outcome::Failed(failed.to_string().into())),
    }
}
