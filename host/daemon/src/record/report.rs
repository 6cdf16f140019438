//! Feeds every event to counters, health, history, subscribers and log.
//!
//! Invariant: this runs under the host's lock, together with the change of state, so that a status is one
//! consistent picture.

use hotmerge_instance::Workers;
use hotmerge_lifecycle::{Outcome, PluginState, Slot, Ticket, Why};
use hotmerge_meta::{
    PluginName,
    control::{Action as Did, PluginReport},
};

use crate::{
    record::{
        events::{self, Ending, Happened, HostEvent, PluginEvent, WatchEvent},
        log,
        store::Store,
    },
    supervise::state::HostState,
};

impl HostState {
    /// Records an event of a plugin.
    pub(crate) fn happened(&mut self, plugin: &PluginName, event: PluginEvent) {
        self.record(Happened::Plugin(plugin.clone(), event));
    }

    /// Records an event.
    pub(crate) fn record(&mut self, happened: Happened) {
        log::write(&happened);
        match happened {
            Happened::Plugin(plugin, event) => {
                self.count(&plugin, &event);
                self.subscribers.tell(&plugin, &event);
                let slot = self.machine.slot(plugin.as_str());
                let at = slot.map_or((PluginState::Idle, None), |it| (it.state(), it.stage()));
                self.history.record(&plugin, at, event);
            }
            // The status shows those that last, and history is of plugins.
            Happened::Host(
                HostEvent::Problem(_)
                | HostEvent::KeysUnusable { .. }
                | HostEvent::Configured { .. }
                | HostEvent::ConfigurationRefused { .. }
                | HostEvent::SandboxDegraded { .. }
                | HostEvent::NoCgroups { .. }
                | HostEvent::NewestUnreadable { .. }
                | HostEvent::ImageDamaged { .. }
                | HostEvent::ClockPanicked
                | HostEvent::Watch(
                    WatchEvent::NotStarted { .. }
                    | WatchEvent::Incomplete { .. }
                    | WatchEvent::PathUnwatched { .. }
                    | WatchEvent::DirectoryUnwatched { .. }
                    | WatchEvent::EventsLost { .. },
                ),
            ) => {}
        }
        self.changed();
    }

    /// Records what the host noticed before there was anybody to tell.
    pub(crate) fn found_at_start(&mut self, store: Option<&Store>, workers: &Workers) {
        for found in store.into_iter().flat_map(Store::take_news) {
            self.record(found);
        }
        if let Some(reason) = workers.no_cgroups() {
            let reason = reason.to_owned();
            self.record(Happened::Host(HostEvent::NoCgroups { reason }));
        }
        self.limits_not_enforced(workers);
        for part in workers.missing() {
            let part = part.clone();
            self.record(Happened::Host(HostEvent::SandboxDegraded { part }));
        }
    }

    /// Records which limits of the configuration in force are not enforced.
    pub(crate) fn limits_not_enforced(&mut self, workers: &Workers) {
        for plugin in workers.without_cpu_limit() {
            self.happened(&plugin, PluginEvent::CpusNotEnforced);
        }
    }

    /// Notifies followers that the status has changed.
    pub(crate) fn changed(&self) {
        for tell in &self.on_change {
            (tell.0)();
        }
    }

    /// The parts of an event that status and figures show as numbers.
    fn count(&mut self, plugin: &PluginName, event: &PluginEvent) {
        match event {
            PluginEvent::Outcome(outcome, cause, report) => {
                self.measured.ended(*outcome, cause, report);
            }
            PluginEvent::Ending(ending) => self.count_ending(plugin, ending),
            PluginEvent::Crashed {
                failure,
                stack,
                state_age,
            } => self.health(plugin).crashed(failure, stack, *state_age),
            PluginEvent::PanickedAgain(_) => self.health(plugin).crashes += 1,
            PluginEvent::Recovered { .. } => self.health(plugin).restarts += 1,
            PluginEvent::Transition(_)
            | PluginEvent::NotRestartedYet { .. }
            | PluginEvent::DiedWhileReplaced(_)
            | PluginEvent::NotGranted { .. }
            | PluginEvent::GivenUp { .. }
            | PluginEvent::Revived
            | PluginEvent::Pinned { .. }
            | PluginEvent::Unpinned
            | PluginEvent::RollbackAsked { .. }
            | PluginEvent::StateNotSaved { .. }
            | PluginEvent::NotPersisted { .. }
            | PluginEvent::PersistedAgain
            | PluginEvent::RecordUnused { .. }
            | PluginEvent::RecordUnreadable { .. }
            | PluginEvent::Postponed { .. }
            | PluginEvent::CpusNotEnforced
            | PluginEvent::MemoryUnwatched { .. }
            | PluginEvent::ReplyDropped { .. }
            | PluginEvent::EndedEarly { .. }
            | PluginEvent::WatcherPanicked => {}
        }
    }

    fn count_ending(&mut self, plugin: &PluginName, ending: &Ending) {
        match ending {
            Ending::Drained { took } => self.measured.drain.add(*took),
            Ending::DrainOverdue { .. } => self.counters.overdue += 1,
            Ending::TeardownStuck { .. } => self.counters.stuck += 1,
            Ending::TeardownReturned => self.counters.stuck -= 1,
            Ending::Retained => {
                self.counters.retained += 1;
                // Nothing is shown of a plugin that is gone.
                if self.machine.slot(plugin.as_str()).is_some() {
                    self.health(plugin).retained += 1;
                }
            }
            Ending::TeardownFailed { .. } | Ending::CandidateEnded => {}
        }
    }

    /// Reports the outcome of an attempt.
    pub(crate) fn report(&mut self, name: &PluginName, ticket: Ticket, outcome: Outcome) {
        let Some(attempt) = self.attempts.get(&ticket) else {
            return;
        };
        let live = self.machine.slot(name.as_str()).and_then(Slot::live);
        let live_hash = live.map(|live| live.meta.hash);
        let mut report = PluginReport {
            plugin: name.clone(),
            action: Did::Unchanged,
            old_hash: live_hash,
            hash: live_hash,
            version: Some(attempt.target.meta.version.clone()),
            generation: live.map(|live| live.generation),
            reason: None,
            pause_ms: None,
            not_durable: None,
            took_ms: attempt.began.elapsed().as_secs_f64() * 1e3,
        };
        if matches!(outcome, Outcome::Loaded | Outcome::Reloaded(_)) {
            let paused = attempt.paused.map(|since| since.elapsed());
            // Nothing else shows why the same version was started again.
            let is_reconfigured = attempt.why == Why::Reconfigured;
            report.reason = is_reconfigured.then(|| attempt.why.text().to_owned());
            report.pause_ms = paused.map(|pause| pause.as_secs_f64() * 1e3);
        }
        if matches!(outcome, Outcome::Trying) {
            report.hash = Some(attempt.target.meta.hash);
        }
        if let Outcome::Refused(refused) | Outcome::StaysOut(refused) = &outcome
            && refused.meta.hash != attempt.target.meta.hash
        {
            // It is about the running version, which stays: nothing was tried.
            report.took_ms = 0.0;
        }
        let cause = match outcome {
            Outcome::Removed(_) => Why::Changed.name(),
            Outcome::Stopped(_) => "stopping",
            Outcome::Loaded
            | Outcome::Reloaded(_)
            | Outcome::Unchanged
            | Outcome::Trying
            | Outcome::Refused(_)
            | Outcome::StaysOut(_) => attempt.why.name(),
        };
        let what = fill(&mut report, outcome);
        self.happened(name, PluginEvent::Outcome(what, cause, Box::new(report)));
    }
}

/// Sets the report's action; programs read `removed` also for a plugin that stops.
fn fill(report: &mut PluginReport, outcome: Outcome) -> events::Outcome {
    let runs = report.hash;
    let (what, action, old_hash, hash) = match outcome {
        Outcome::Loaded => (events::Outcome::Loaded, Did::Loaded, None, runs),
        Outcome::Reloaded(old) => (events::Outcome::Reloaded, Did::Reloaded, Some(old), runs),
        Outcome::Unchanged => (events::Outcome::Unchanged, Did::Unchanged, runs, runs),
        Outcome::Trying => (
            events::Outcome::TrialBegun,
            Did::Trying,
            report.old_hash,
            runs,
        ),
        Outcome::Refused(refused) => {
            report.version = Some(refused.meta.version.clone());
            report.reason = Some(refused.reason);
            let hash = Some(refused.meta.hash);
            (events::Outcome::Refused, Did::Refused, runs, hash)
        }
        Outcome::StaysOut(found) => {
            report.reason = Some(format!(
                "no longer pinned; {} in the plugin directory is not loaded: {}",
                found.meta.version, found.reason
            ));
            (events::Outcome::Unchanged, Did::Unchanged, runs, runs)
        }
        Outcome::Removed(old) => {
            report.took_ms = 0.0;
            (events::Outcome::Removed, Did::Removed, Some(old), None)
        }
        Outcome::Stopped(old) => {
            report.took_ms = 0.0;
            (events::Outcome::Stopped, Did::Removed, Some(old), None)
        }
    };
    report.action = action;
    report.old_hash = old_hash;
    report.hash = hash;
    what
}
