//! What plugins say of themselves, asked once per version.
//!
//! To describe itself a plugin runs code, so readers of the document must not make it do so again
//! and again: an answer is kept for the version that gave it, a failure for half a minute, and a
//! plugin that is being asked is not asked a second time. Plugins are asked on threads of their own,
//! so that one that hangs takes none from the calls.
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

const LATE: &str = "it has not described itself yet; ask again";

/// When a plugin that failed is asked again.
const RETRY: Duration = Duration::from_secs(30);

/// What a plugin says of itself, and what a document makes of it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) description: Description,
    pub(super) operations: Operations,
}

/// What is known of a plugin's description.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// It does not describe itself, or no version of it takes calls.
    Nothing,
    Described(Arc<Described>),
    /// Why there is none, which it should have.
    Failed(Arc<str>),
}

impl PartialEq for Told {
    /// Whether it is the same answer to the same question.
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
    /// Nothing while it is asked.
    told: Option<Told>,
    at: Instant,
}

/// What is known of all plugins.
#[derive(Debug, Default)]
pub(super) struct Descriptions {
    known: Mutex<BTreeMap<String, Known>>,
    running: AtomicUsize,
    news: watch::Sender<()>,
}

impl Descriptions {
    /// What the plugin with this status says of itself, if it is known until then.
    pub(super) async fn of(
        self: &Arc<Self>,
        host: &Arc<Host>,
        status: &PluginStatus,
        until: tokio::time::Instant,
    ) -> Told {
        if status.hash.is_none() {
            return Told::Nothing;
        }
        let mut news = self.news.subscribe();
        let (name, generation) = (&status.name, status.generation);
        if self.begin(name, generation) {
            self.start(host, name, generation);
        }
        let told = async {
            loop {
                if let Some(told) = self.told(name) {
                    return told;
                }
                // The sender lives as long as this.
                let _ = news.changed().await;
            }
        };
        let until = until.min(tokio::time::Instant::now() + PATIENCE_EACH);
        let told = tokio::time::timeout_at(until, told).await;
        told.unwrap_or_else(|_| Told::Failed(LATE.into()))
    }

    /// Asks it on a thread of its own.
    fn start(self: &Arc<Self>, host: &Arc<Host>, name: &str, generation: u64) {
        let (all, host, plugin) = (Arc::clone(self), Arc::clone(host), name.to_owned());
        let run = move || {
            let (generation_told, told) = ask(&host, &plugin, generation);
            all.learn(&plugin, generation, generation_told, told);
        };
        let thread = thread::Builder::new().name("describe".to_owned());
        if let Err(error) = thread.spawn(run) {
            let failed = format!("failed to start a thread to ask it: {error}");
            self.learn(name, generation, generation, Told::Failed(failed.into()));
        }
    }

    /// Forgets plugins that are not among these.
    pub(super) fn keep(&self, plugins: &[PluginStatus]) {
        let is_there = |name: &String| plugins.iter().any(|it| it.name == *name);
        self.lock().retain(|name, _| is_there(name));
    }

    /// Whether the caller is to ask the plugin now.
    fn begin(&self, name: &str, generation: u64) -> bool {
        let mut all = self.lock();
        let is_known = all.get(name).is_some_and(|it| {
            let is_settled = match &it.told {
                Some(Told::Failed(_)) => it.at.elapsed() < RETRY,
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
            told: None,
            at: Instant::now(),
        };
        all.insert(name.to_owned(), known);
        true
    }

    fn learn(&self, name: &str, generation: u64, generation_told: u64, told: Told) {
        let mut all = self.lock();
        self.running.fetch_sub(1, Ordering::Relaxed);
        // Another version may have been asked since.
        if let Some(known) = all.get_mut(name).filter(|it| it.generation == generation) {
            *known = Known {
                generation: generation_told,
                told: Some(told),
                at: Instant::now(),
            };
        }
        drop(all);
        self.news.send_replace(());
    }

    fn told(&self, name: &str) -> Option<Told> {
        match self.lock().get(name) {
            Some(known) => known.told.clone(),
            // Too many others are being asked.
            None => Some(Told::Failed(LATE.into())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it says, and the version that said it, which may be a newer one.
fn ask(host: &Host, name: &str, generation: u64) -> (u64, Told) {
    let Some(plugin) = host.plugin(name) else {
        return (generation, Told::Nothing);
    };
    match description::of(&plugin) {
        Ok((answered, description)) => {
            let operations = operations::of(name, &description);
            let described = Described {
                description,
                operations,
            };
            (answered.generation, Told::Described(Arc::new(described)))
        }
        Err(Undescribed::Nothing(_)) => (generation, Told::Nothing),
        Err(failed) => (generation, Told::Failed(failed.to_string().into())),
    }
}
