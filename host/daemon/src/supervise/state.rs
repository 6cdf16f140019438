//! The host's current knowledge: plain data under the supervisor's lock.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hotmerge_instance::{Cancel, Failure, Instance, Restarts};
use hotmerge_lifecycle::{Machine, Slot, Stage, Target, Ticket, Why};
use hotmerge_loader::Verified;
use hotmerge_meta::{
    Digest, PluginMeta, PluginName,
    control::{FailureStatus, KeyChange, Problem},
};
use hotmerge_swap::Draining;
use jiff::Timestamp;

use crate::{
    Config,
    find::{
        scan::Dirty,
        signed::{Newest, Signed},
    },
    plugin::Version,
    record::{history::History, measured::Measured, subscribers::Subscribers},
};

/// Counters for operators.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Scans of the whole directory.
    pub(crate) full_looks: u64,
    /// Scans of packages that watchers reported or that had not settled.
    pub(crate) hinted_looks: u64,
    pub(crate) last_look: Option<Timestamp>,
    pub(crate) retained: u64,
    pub(crate) stuck: u64,
    pub(crate) overdue: u64,
}

impl Counters {
    pub(crate) fn count_look(&mut self, dirty: &Dirty) {
        match dirty {
            Dirty::All { .. } => self.full_looks += 1,
            Dirty::Named(_) => self.hinted_looks += 1,
        }
        self.last_look = Some(Timestamp::now());
    }
}

#[derive(Default)]
pub(crate) struct HostState {
    pub(crate) machine: Machine,
    pub(crate) counters: Counters,
    pub(crate) measured: Measured,
    pub(crate) attempts: HashMap<Ticket, Attempt>,
    pub(crate) history: History,
    pub(crate) subscribers: Subscribers,
    pub(crate) health: HashMap<PluginName, Health>,
    pub(crate) problems: Vec<Problem>,
    /// Plugins with a candidate.
    pub(crate) active: BTreeSet<PluginName>,
    /// Those of them whose attempt will end by itself.
    pub(crate) busy: BTreeSet<PluginName>,
    /// Number of store records that are still to be written.
    pub(crate) persisting: usize,
    /// Candidates whose file and meta differ: since when, and how.
    pub(crate) differing: HashMap<PluginName, (Instant, String)>,
    /// The newest signed versions that have run.
    pub(crate) newest: HashMap<PluginName, Newest>,
    /// Plugins whose versions arrive faster than they start, and since when: from the first candidate that
    /// was overtaken until no attempt is in progress.
    pub(crate) overtaken: HashMap<PluginName, Timestamp>,
    /// Whether the last pass found something that has not settled.
    pub(crate) unsettled: bool,
    pub(crate) stopping: bool,
    /// Whether stopping waits for nothing.
    pub(crate) hurried: bool,
    pub(crate) configured: Configured,
    /// Called after every change.
    pub(crate) on_change: Vec<OnChange>,
}

/// A function of the embedding program that is called on every change, under the host's lock.
pub(crate) struct OnChange(pub(crate) Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for OnChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnChange")
    }
}

/// The outcome of the last reading of the configuration.
#[derive(Debug)]
pub(crate) struct Configured {
    /// When the configuration in force was read.
    pub(crate) since: Timestamp,
    /// Keys that wait for a restart of the host.
    pub(crate) needs_restart: Vec<KeyChange>,
    /// A later one that is invalid: when it was read, and why.
    pub(crate) refused: Option<(Timestamp, String)>,
}

impl Default for Configured {
    fn default() -> Self {
        Self {
            since: Timestamp::now(),
            needs_restart: Vec::new(),
            refused: None,
        }
    }
}

/// What is known about a version, from its discovery to its end.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) target: Target,
    pub(crate) why: Why,
    /// The configuration with which it starts, and which its version keeps.
    pub(crate) config: Arc<Config>,
    pub(crate) began: Instant,
    /// Since when calls have waited for it, if they do.
    pub(crate) paused: Option<Instant>,
    /// Since when it takes no new calls, if it is an old version.
    pub(crate) replaced: Option<Instant>,
    pub(crate) progress: Progress,
    /// Its generation, which its records carry; 0 before it takes calls.
    pub(crate) generation: Arc<AtomicU64>,
    /// Who signed it.
    pub(crate) signed: Option<Arc<Signed>>,
    /// Breaks its start off.
    pub(crate) break_off: Arc<Cancel>,
}

/// The progress of a version, with the data of each step.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each version that runs, and boxes would have to be allocated"
)]
pub(crate) enum Progress {
    /// Its file is being read, or has not settled.
    Verifying,
    /// It waits for plugins that it requires.
    Verified(Verified),
    /// A thread has been running its code since then.
    Starting(Instant),
    /// It has started, but takes no calls yet.
    Ready(Instance),
    /// A thread hands the state over to it; once calls wait, at most until then.
    HandingOver(Option<Instant>),
    /// It takes a share of the calls until then.
    Trying(Instant),
    /// It takes the calls.
    Live,
    /// It failed, and is about to be refused.
    Failed,
    /// It takes no new calls.
    Draining(Draining<Version>),
    /// It is being torn down.
    Ending,
}

impl Progress {
    /// Its name for operators.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Verifying => "verifying",
            Self::Verified(_) => "verified",
            Self::Starting(_) => "starting",
            Self::Ready(_) => "started",
            Self::HandingOver(None) => {
                "waiting for calls to return before the state is handed over"
            }
            Self::HandingOver(Some(_)) => "handing over the state",
            Self::Trying(_) => "trying",
            Self::Live => "live",
            Self::Failed => "failed",
            Self::Draining(_) => "draining",
            Self::Ending => "ending",
        }
    }
}

impl Attempt {
    pub(crate) fn new(target: Target, why: Why, config: Arc<Config>) -> Self {
        Self {
            target,
            why,
            config,
            began: Instant::now(),
            paused: None,
            replaced: None,
            progress: Progress::Verifying,
            generation: Arc::default(),
            signed: None,
            break_off: Arc::default(),
        }
    }

    /// Takes the verified bytes, if it is in that step; it is about to start then.
    pub(crate) fn take_verified(&mut self) -> Option<Verified> {
        match std::mem::replace(&mut self.progress, Progress::Verifying) {
            Progress::Verified(verified) => Some(verified),
            other => {
                self.progress = other;
                None
            }
        }
    }

    /// Takes the started instance, if it is in that step; it continues as `next`.
    pub(crate) fn take_ready(&mut self, next: Progress) -> Option<Instance> {
        match std::mem::replace(&mut self.progress, next) {
            Progress::Ready(instance) => Some(instance),
            other => {
                self.progress = other;
                None
            }
        }
    }

    /// Takes the draining version and since when it drains, if it is in that step; it is about to be
    /// torn down then.
    pub(crate) fn take_draining(&mut self) -> Option<(Draining<Version>, Option<Instant>)> {
        match std::mem::replace(&mut self.progress, Progress::Ending) {
            Progress::Draining(version) => Some((version, self.replaced)),
            other => {
                self.progress = other;
                None
            }
        }
    }
}

/// What is known about one plugin's crashes.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// How often it was started again.
    pub(crate) restarts: u64,
    /// How often it crashed or the host caught its panic.
    pub(crate) crashes: u64,
    /// How many of its versions could not be unmapped.
    pub(crate) retained: u64,
    pub(crate) last: Option<FailureStatus>,
    /// Recent crashes of this version in the host's own process.
    pub(crate) recent: Option<(Digest, Restarts)>,
    /// When to replace an instance.
    pub(crate) replace: Option<(Instant, Ticket)>,
    /// When to take a checkpoint.
    pub(crate) save: Option<(Instant, Ticket)>,
    /// When to try a version again for which the system lacked a resource, and how often that happened in
    /// a row.
    pub(crate) retry: Option<(Instant, u32)>,
}

impl Health {
    /// It crashed, or its panic was caught; its last checkpoint is this old.
    pub(crate) fn crashed(&mut self, failure: &Failure, stack: &[String], age: Option<Duration>) {
        self.crashes += 1;
        self.last = Some(FailureStatus {
            time: format!("{:.3}", Timestamp::now()),
            what: failure.told(),
            method: failure.method.clone(),
            trace_id: failure.trace.clone(),
            stack: stack.to_vec(),
            state_age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        });
    }
}

impl HostState {
    /// The plugins whose last attempt was refused.
    pub(crate) fn refused(&self) -> impl Iterator<Item = &PluginName> {
        self.machine
            .slots()
            .iter()
            .filter(|(_, slot)| slot.refused().is_some())
            .map(|(name, _)| name)
    }

    /// The meta of the version that takes calls.
    pub(crate) fn live_meta(&self, name: &str) -> Option<&Arc<PluginMeta>> {
        Some(&self.machine.slot(name)?.live()?.meta)
    }

    /// The configuration that the version which takes calls was started by.
    pub(crate) fn live_config(&self, name: &str) -> Option<Arc<Config>> {
        let ticket = self.machine.slot(name)?.live()?.ticket;
        Some(Arc::clone(&self.attempts.get(&ticket)?.config))
    }

    /// The attempt of a candidate, if it still is one.
    pub(crate) fn candidate(&self, name: &PluginName) -> Option<(Ticket, Stage, &Attempt)> {
        let slot = self.machine.slot(name.as_str())?;
        let (ticket, _) = slot.candidate()?;
        Some((ticket, slot.stage()?, self.attempts.get(&ticket)?))
    }

    /// The signature of the version that takes calls.
    pub(crate) fn live_signed(&self, name: &str) -> Option<&Arc<Signed>> {
        let live = self.machine.slot(name)?.live()?;
        self.attempts.get(&live.ticket)?.signed.as_ref()
    }

    /// Notes that an attempt's version runs already: its latest signature applies to it.
    pub(crate) fn runs_already(&mut self, name: &PluginName, ticket: Ticket) {
        self.has_run(name, ticket);
        let slot = self.machine.slot(name.as_str());
        let live = slot.and_then(Slot::live).map(|live| live.ticket);
        let signed = self.attempts.get(&ticket).map(|it| it.signed.clone());
        if let (Some(live), Some(signed)) = (live, signed)
            && let Some(live) = self.attempts.get_mut(&live)
        {
            live.signed = signed;
        }
    }

    /// Remembers that a version has gone live.
    pub(crate) fn has_run(&mut self, name: &PluginName, ticket: Ticket) {
        let attempt = self.attempts.get(&ticket);
        let Some((attempt, signed)) = attempt.and_then(|it| Some((it, it.signed.as_ref()?))) else {
            return;
        };
        let newest = signed.newest(&attempt.target.meta, self.newest.get(name));
        self.newest.insert(name.clone(), newest);
    }

    pub(crate) fn running(&self) -> usize {
        let slots = self.machine.slots().values();
        slots
            .map(|slot| slot.retiring().len() + usize::from(slot.live().is_some()))
            .sum()
    }

    /// A started candidate as a version that can take calls; its attempt continues as `next`.
    pub(crate) fn ready_version(
        &mut self,
        name: &PluginName,
        ticket: Ticket,
        next: Progress,
    ) -> Option<Box<Version>> {
        let slot = self.machine.slot(name.as_str())?;
        let live = slot.live()?;
        let (meta, generation) = if live.ticket == ticket {
            (Arc::clone(&live.meta), live.generation)
        } else {
            let (_, target) = slot.candidate()?;
            (Arc::clone(&target.meta), live.generation + 1)
        };
        let attempt = self.attempts.get_mut(&ticket)?;
        attempt.generation.store(generation, Ordering::Relaxed);
        Some(Box::new(Version {
            instance: attempt.take_ready(next)?,
            ticket,
            generation,
            hash: meta.hash,
        }))
    }

    pub(crate) fn set_draining(&mut self, old: Option<Draining<Version>>) {
        if let Some(old) = old
            && let Some(attempt) = self.attempts.get_mut(&old.ticket)
        {
            attempt.replaced = Some(Instant::now());
            attempt.progress = Progress::Draining(old);
        }
    }

    /// Forgets an attempt once nothing refers to it.
    pub(crate) fn forget(&mut self, name: &PluginName, ticket: Ticket) {
        let slot = self.machine.slot(name.as_str());
        if !slot.is_some_and(|slot: &Slot| slot.refers_to(ticket)) {
            self.attempts.remove(&ticket);
        }
    }

    /// The record of a plugin's crashes.
    pub(crate) fn health(&mut self, plugin: &PluginName) -> &mut Health {
        self.health.entry(plugin.clone()).or_default()
    }
}
