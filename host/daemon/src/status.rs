//! What `hotmerge status` shows. Field names are stable: programs read them.

use std::{fmt, path::PathBuf, sync::atomic::Ordering};

use hotmerge_meta::{Digest, PluginMeta, control::Problem};
use serde::{Deserialize, Serialize};

use crate::{
    cell::{Cell, Cells, Isolation},
    failure,
    lifecycle::{Slot, Stage, State as PluginState},
    plugin::Plugin,
    supervisor::{State, Supervisor},
    wants,
};

/// The target triple of this host.
pub const TARGET: &str = env!("HOTMERGE_TARGET");

/// A host and its plugins at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The host itself.
    pub host: HostStatus,
    /// Every plugin it knows, by name.
    pub plugins: Vec<PluginStatus>,
    /// What in the plugin directory cannot be used, and why.
    pub problems: Vec<Problem>,
}

/// The host itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostStatus {
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// The contract it offers to plugins.
    pub abi: String,
    /// Target triple of what it runs.
    pub target: String,
    /// Where it looks for plugins.
    pub plugin_dir: PathBuf,
    /// Where it keeps the last good versions; none if it does not.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// When it started, RFC 3339.
    pub started: String,
    /// `inotify`, or why nothing is watched.
    pub watch: String,
    /// How often it has looked at the plugin directory.
    pub rescans: u64,
    /// Position in the history; a later one means that something happened.
    pub position: u64,
    /// Old versions whose memory could not be given back.
    pub retained: u64,
    /// Old versions whose teardown has not returned in time, and still has not.
    pub stuck: u64,
    /// How often calls on an old version took longer than the drain time.
    pub overdue: u64,
    /// Log records that found no room.
    pub log_dropped: u64,
    /// How often SIGUSR1 was seen to have come, with which workers tell of a crash. Several that
    /// came at once are one.
    #[serde(default)]
    pub crash_signals: u64,
    /// Parts of the sandbox that this system does not give; empty if all are in place.
    #[serde(default)]
    pub degraded: Vec<String>,
    /// What keeps workers to their limits: rlimits, and the controllers of a cgroup.
    #[serde(default)]
    pub limits: String,
}

/// One plugin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PluginStatus {
    /// Its name.
    pub name: String,
    /// Version of what runs; if nothing does, of the candidate, or of what was refused.
    pub version: Option<String>,
    /// Digest of what runs.
    pub hash: Option<Digest>,
    /// Where it is in its life.
    pub state: PluginState,
    /// How far its candidate is, if it has one.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// Why it came to this state.
    #[serde(default)]
    pub reason: String,
    /// Since when it is in this state, RFC 3339.
    #[serde(default)]
    pub since: Option<String>,
    /// Counts the versions that went live, from 1; 0 if none runs.
    pub generation: u64,
    /// How it is kept apart from the host: `host` is not at all.
    pub isolation: Option<String>,
    /// The package it is in.
    pub package: Option<String>,
    /// Where its table lies in the host's memory, in hexadecimal.
    pub address: Option<String>,
    /// How often it was started again after a crash.
    #[serde(default)]
    pub restarts: u64,
    /// What went wrong with it last.
    #[serde(default)]
    pub last_failure: Option<FailureStatus>,
    /// What waits because the system does not give what it takes: a thread, a process.
    #[serde(default)]
    pub waiting: Vec<String>,
    /// The state that it would go on from after a crash.
    #[serde(default)]
    pub saved: Option<SavedStatus>,
    /// Its worker, if it lives in a process of its own.
    #[serde(default)]
    pub worker: Option<WorkerStatus>,
    /// What it asks for in its meta and was not granted: `fs:/path`, `net`.
    #[serde(default)]
    pub not_granted: Vec<String>,
    /// Calls that were answered with an error.
    pub calls_failed: u64,
    /// Calls that their callers ended, or hung up on; not among those that failed.
    #[serde(default)]
    pub calls_cancelled: u64,
    /// Calls that panicked.
    pub calls_panicked: u64,
    /// Old versions of it whose memory could not be given back.
    pub retained: u64,
    /// Old versions that have not ended yet.
    pub ending: Vec<EndingStatus>,
    /// The last version that was refused since one went live.
    pub refused: Option<RefusedStatus>,
    /// Whether it stays whatever the directory says.
    #[serde(default)]
    pub pinned: bool,
    /// The hash in the directory that was rolled back.
    #[serde(default)]
    pub rolled_back: Option<Digest>,
    /// The versions that can be gone back to, newest first.
    #[serde(default)]
    pub kept: Vec<KeptStatus>,
    /// The version that takes a share of the calls.
    #[serde(default)]
    pub canary: Option<CanaryStatus>,
}

/// A version in the host's store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptStatus {
    /// Its version.
    pub version: String,
    /// Its digest.
    pub hash: Digest,
}

/// A version that takes a share of the calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CanaryStatus {
    /// Its version.
    pub version: String,
    /// Its digest.
    pub hash: Digest,
    /// How many calls it took.
    pub calls: u64,
    /// How many of them failed.
    pub failed: u64,
}

/// The process that a plugin lives in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number; absent while none runs.
    pub pid: Option<i32>,
    /// Private memory that it uses.
    pub memory_bytes: Option<u64>,
    /// Processor time that it has used.
    pub cpu_ms: Option<u64>,
    /// How long it took from the start of the process to being fit to take calls: shut in,
    /// loaded, started and checked.
    #[serde(default)]
    pub start_ms: f64,
    /// Parts of its sandbox that are not in place.
    pub degraded: Vec<String>,
    /// Its log records that found no room.
    pub log_dropped: u64,
}

/// What went wrong with a plugin that ran.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FailureStatus {
    /// When, RFC 3339.
    pub time: String,
    /// What happened, to be read behind "it": `was killed by SIGSEGV at 0x8`.
    pub what: String,
    /// In which method.
    pub method: Option<String>,
    /// The trace of the call, in hexadecimal.
    pub trace_id: Option<String>,
    /// Where a panic came from, innermost first: names of functions, or offsets in a file that
    /// has no names.
    #[serde(default)]
    pub stack: Vec<String>,
    /// How old the state was that the next instance went on from, in milliseconds; absent if
    /// there was none.
    pub state_age_ms: Option<u64>,
}

impl fmt::Display for FailureStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, trace) = (self.method.as_deref(), self.trace_id.as_deref());
        failure::sentence(f, &self.what, method, trace)
    }
}

/// A state that was saved for the case of a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedStatus {
    /// When, RFC 3339.
    pub time: String,
    /// The version that saved it.
    pub version: String,
    /// Its size.
    pub bytes: u64,
}

/// An old version that has not ended yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndingStatus {
    /// Digest of the version.
    pub hash: Digest,
    /// `draining`, `overdue`, `teardown` or `stuck`.
    pub state: String,
}

/// A version that was refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefusedStatus {
    /// Digest of the version.
    pub hash: Digest,
    /// Why.
    pub reason: String,
}

impl Supervisor {
    /// The plugins and problems at this moment.
    pub(crate) fn plugin_status(&self) -> (Vec<PluginStatus>, Vec<Problem>) {
        let state = self.state();
        let plugins = state
            .machine
            .slots()
            .iter()
            .map(|(name, slot)| {
                let plugin = self.plugin(name.as_str());
                let mut status =
                    describe(&state, &self.cells, name.as_str(), slot, plugin.as_deref());
                status
                    .waiting
                    .extend(self.background.waiting(name.as_str()));
                status
            })
            .collect();
        let problems = state.problems.clone();
        drop(state);
        (self.with_kept(plugins), problems)
    }

    /// Adds what the store has, whose lock is held while it writes: nothing else may wait for it.
    fn with_kept(&self, mut plugins: Vec<PluginStatus>) -> Vec<PluginStatus> {
        for plugin in &mut plugins {
            let store = self.store.iter();
            let kept = store.flat_map(|store| store.versions(&plugin.name));
            let kept = kept.map(|meta| KeptStatus {
                version: meta.version.to_string(),
                hash: meta.hash,
            });
            plugin.kept = kept.collect();
        }
        plugins
    }
}

/// What a version that takes calls says of itself.
#[derive(Default)]
struct Running {
    isolation: String,
    address: Option<String>,
    worker: Option<WorkerStatus>,
    waiting: Option<String>,
    saved: Option<SavedStatus>,
}

fn not_granted(cells: &Cells, meta: &PluginMeta) -> Vec<String> {
    // What cannot be kept as it should is refused, and has nothing.
    let isolation = cells.isolation(meta.name.as_str());
    wants::not_granted(
        &meta.wants,
        cells.config.grants(&meta.name),
        isolation.unwrap_or(Isolation::Process),
    )
}

fn describe(
    state: &State,
    cells: &Cells,
    name: &str,
    slot: &Slot,
    plugin: Option<&Plugin>,
) -> PluginStatus {
    let live = slot.live();
    let candidate = slot.candidate();
    let ticket = live.map(|live| live.ticket);
    let ticket = ticket.or(candidate.map(|(ticket, _)| ticket));
    let attempt = ticket.and_then(|ticket| state.attempts.get(&ticket));
    let meta = live
        .map(|live| &live.meta)
        .or(candidate.map(|(_, target)| &target.meta))
        .or(slot.refused().map(|refused| &refused.meta));
    let count = |counter: fn(&Plugin) -> u64| plugin.map_or(0, counter);
    let running = plugin.and_then(running);
    let running = running.unwrap_or_default();
    let health = state.health.get(name);
    PluginStatus {
        name: name.to_owned(),
        version: meta.map(|meta| meta.version.to_string()),
        hash: live.map(|live| live.meta.hash),
        state: slot.state(),
        stage: slot.stage(),
        reason: slot.reason().to_owned(),
        since: state.history.unchanged_since(name),
        generation: live.map_or(0, |live| live.generation),
        isolation: (!running.isolation.is_empty()).then_some(running.isolation),
        package: attempt
            .and_then(|attempt| attempt.target.origin.package())
            .map(ToString::to_string),
        address: running.address,
        restarts: health.map_or(0, |health| health.restarts),
        last_failure: health.and_then(|health| health.last.clone()),
        waiting: running.waiting.into_iter().collect(),
        saved: running.saved,
        worker: running.worker,
        not_granted: meta.map_or_else(Vec::new, |meta| not_granted(cells, meta)),
        calls_failed: count(|plugin| plugin.failed.load(Ordering::Relaxed)),
        calls_cancelled: count(|plugin| plugin.cancelled.load(Ordering::Relaxed)),
        calls_panicked: count(|plugin| plugin.panicked.load(Ordering::Relaxed)),
        retained: count(|plugin| plugin.retained.load(Ordering::Relaxed)),
        ending: slot
            .olds()
            .iter()
            .map(|old| EndingStatus {
                hash: old.meta.hash,
                state: old.ending.to_string(),
            })
            .collect(),
        refused: slot.refused().map(|refused| RefusedStatus {
            hash: refused.meta.hash,
            reason: refused.reason.clone(),
        }),
        pinned: slot.choice().is_some_and(|choice| choice.pinned),
        rolled_back: slot.choice().and_then(|choice| choice.instead_of),
        kept: Vec::new(),
        canary: canary(slot, plugin),
    }
}

/// How the live version is kept apart, and where it lies. Whoever asks holds a lock that the
/// end of a pause needs, so this must not wait for it.
fn running(plugin: &Plugin) -> Option<Running> {
    plugin.peek(|version| {
        let instance = &version.instance;
        let cell = instance.cell();
        Some(Running {
            isolation: instance.isolation().to_owned(),
            address: instance.address().map(|address| format!("{address:#x}")),
            worker: cell.map(Cell::status),
            waiting: cell.and_then(Cell::waiting),
            saved: instance.last_state().status(),
        })
    })
}

fn canary(slot: &Slot, plugin: Option<&Plugin>) -> Option<CanaryStatus> {
    let (_, target) = slot
        .candidate()
        .filter(|_| slot.stage() == Some(Stage::Trying))?;
    let (calls, failed) = plugin?.canary_counts();
    Some(CanaryStatus {
        version: target.meta.version.to_string(),
        hash: target.meta.hash,
        calls,
        failed,
    })
}
