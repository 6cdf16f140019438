//! What `hotmerge status` shows. Field names are stable: programs read them.

pub use hotmerge_meta::control::{
    CanaryStatus, ConfigRefused, ConfigStatus, EndingStatus, FailureStatus, HostStatus, KeptStatus,
    PluginStatus, RefusedStatus, SavedStatus, Status, StoreFailure, WorkerStatus,
};
use hotmerge_meta::{PluginMeta, control::Problem, count};
use jiff::Timestamp;

use hotmerge_instance::{Isolation, Workers, rules::wants};
use hotmerge_lifecycle::{Slot, Stage};

use crate::{
    plugin::{Failed, Plugin},
    supervise::{
        state::{Configured, Counters, Health, HostState},
        supervisor::Supervisor,
    },
};

/// Everything that changes under the host's lock, at one moment.
pub(crate) struct Snapshot {
    pub(crate) counters: Counters,
    pub(crate) position: u64,
    pub(crate) plugins: Vec<PluginStatus>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) config: ConfigStatus,
}

impl Supervisor {
    /// The current counters, plugins and problems.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let plugins = state
            .machine
            .slots()
            .iter()
            .map(|(name, slot)| {
                let plugin = self.plugin(name.as_str());
                let mut status = describe(
                    &state,
                    &self.workers,
                    name.as_str(),
                    slot,
                    plugin.as_deref(),
                );
                let candidate = slot.candidate().map(|(ticket, _)| ticket);
                let place = candidate.and_then(|ticket| self.jobs.waiting(ticket));
                let thread = self.background.waiting(name.as_str());
                status.waiting.extend(place.into_iter().chain(thread));
                status
            })
            .collect();
        let mut snapshot = Snapshot {
            counters: state.counters,
            position: state.history.position(),
            plugins,
            problems: state.problems.clone(),
            config: config(&state.configured),
        };
        drop(state);
        snapshot.plugins = self.with_kept(snapshot.plugins);
        snapshot
    }

    /// Adds the stored versions. The store's lock is held during writes, so that this must not hold another
    /// one.
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

fn config(configured: &Configured) -> ConfigStatus {
    let refused = configured.refused.as_ref();
    ConfigStatus {
        file: None,
        since: format!("{:.0}", configured.since),
        needs_restart: configured.needs_restart.clone(),
        refused: refused.map(|(time, reason)| ConfigRefused {
            time: format!("{time:.0}"),
            reason: reason.clone(),
        }),
    }
}

/// The status of a version that takes calls.
#[derive(Default)]
struct Running {
    isolation: String,
    address: Option<String>,
    worker: Option<WorkerStatus>,
    waiting: Option<String>,
    saved: Option<SavedStatus>,
}

fn not_granted(workers: &Workers, meta: &PluginMeta) -> Vec<String> {
    // A plugin whose isolation is not available is refused, and has none.
    let isolation = workers.isolation(meta.name.as_str());
    wants::not_granted(
        &meta.wants,
        &workers.grants(meta.name.as_str()),
        isolation.unwrap_or(Isolation::Process),
    )
}

fn describe(
    state: &HostState,
    workers: &Workers,
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
        signed: attempt
            .and_then(|attempt| attempt.signed.as_ref())
            .map(|signed| signed.status()),
        address: running.address,
        restarts: health.map_or(0, |health| health.restarts),
        last_failure: health.and_then(|health| health.last.clone()),
        waiting: running
            .waiting
            .into_iter()
            .chain(health.and_then(waits_for_room))
            .chain(state.overtaken.get(name).map(changes_all_the_time))
            .collect(),
        saved: running.saved,
        worker: running.worker,
        not_granted: meta.map_or_else(Vec::new, |meta| not_granted(workers, meta)),
        calls: count(|plugin| plugin.calls.all_ended()),
        calls_failed: count(|plugin| plugin.calls.failed()),
        calls_cancelled: count(|plugin| plugin.calls.failed_as(Failed::Cancelled)),
        calls_panicked: count(|plugin| plugin.calls.failed_as(Failed::Panicked)),
        retained: health.map_or(0, |health| health.retained),
        ending: slot
            .retiring()
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
        outdated: slot.is_outdated(),
        pinned: slot.choice().is_some_and(|choice| choice.pinned),
        rolled_back: slot.choice().and_then(|choice| choice.instead_of),
        kept: Vec::new(),
        canary: canary(slot, plugin),
    }
}

/// Isolation and address of the live version. The caller holds a lock that the end of a pause needs, so
/// that this must not wait for that end.
fn running(plugin: &Plugin) -> Option<Running> {
    plugin.peek(|version| {
        let instance = &version.instance;
        let worker = instance.worker();
        Some(Running {
            isolation: instance.isolation().to_owned(),
            address: instance.address().map(|address| format!("{address:#x}")),
            worker: worker.map(|worker| worker.status()),
            waiting: worker.and_then(|worker| worker.waiting()),
            saved: instance.checkpoint().status(),
        })
    })
}

/// Says that a version will be tried again for which the system lacked a resource.
fn waits_for_room(health: &Health) -> Option<String> {
    let (_, tries) = health.retry?;
    let tried = count(tries.into(), "time");
    Some(format!(
        "the system lacked memory, processes or descriptors for a version (tried {tried}); it is tried again"
    ))
}

/// Says since when new versions arrive faster than they start.
fn changes_all_the_time(since: &Timestamp) -> String {
    format!(
        "its directory has changed faster than its versions start since {since:.3}; most of them \
         are skipped"
    )
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
