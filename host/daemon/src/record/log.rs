//! Writes events as log records, with fields and messages that are easy to search for.
//!
//! Invariant: nothing else of the host's library writes records that an operator gets unasked. Steps on the
//! way (debug and trace) are written where they are taken.

use hotmerge_instance::{Failure, spawn::RETRY};
use hotmerge_lifecycle::Note;
use hotmerge_meta::{
    Digest, PluginName,
    control::{KeyChange, PluginReport},
};
use tracing::{debug, error, info, trace, warn};

use crate::record::{
    events::{Ending, Happened, HostEvent, Outcome, PluginEvent, WatchEvent},
    words::{TransitionText, continues},
};

/// Logs an event.
pub(crate) fn write(happened: &Happened) {
    match happened {
        Happened::Plugin(plugin, event) => of_plugin(plugin, event),
        Happened::Host(event) => of_host(event),
    }
}

fn of_host(event: &HostEvent) {
    match event {
        HostEvent::Problem(problem) => {
            warn!(target: "hotmerge::host", package = %problem.package, "{}", problem.reason);
        }
        HostEvent::KeysUnusable { reason } => {
            warn!(target: "hotmerge::host", "signatures are required, but {reason}");
        }
        HostEvent::Configured {
            needs_restart,
            waited_before,
            restarted,
        } => configured(needs_restart, *waited_before, restarted),
        HostEvent::ConfigurationRefused { reason } => error!(
            target: "hotmerge::host",
            "the configuration was refused; the previous one stays in force: {reason}"
        ),
        HostEvent::SandboxDegraded { part } => {
            warn!(target: "hotmerge::worker", "the sandbox is degraded: {part}");
        }
        HostEvent::NoCgroups { reason } => {
            warn!(target: "hotmerge::worker", "workers have no cgroups of their own: {reason}");
        }
        HostEvent::NewestUnreadable { reason } => error!(
            target: "hotmerge::host",
            "the record of signed versions that have run cannot be read: {reason}; older ones are \
             accepted"
        ),
        HostEvent::ImageDamaged { name } => {
            warn!(target: "hotmerge::host", "the stored image `{name}` was damaged; rewriting it");
        }
        HostEvent::ClockPanicked => {
            error!(target: "hotmerge::host", "the clock's thread panicked");
        }
        HostEvent::Watch(event) => of_watch(event),
    }
}

fn configured(needs_restart: &[KeyChange], waited_before: usize, restarted: &[PluginName]) {
    let restarted = restarted.iter().map(PluginName::as_str).collect::<Vec<_>>();
    if needs_restart.is_empty() && waited_before == 0 && restarted.is_empty() {
        info!(target: "hotmerge::host", "the configuration was read");
        return;
    }
    let keys: Vec<_> = needs_restart.iter().map(|change| &*change.key).collect();
    let plugins = restarted.join(", ");
    match keys.as_slice() {
        [] => {
            info!(target: "hotmerge::host", plugins, "the configuration was read and is in force");
        }
        keys => warn!(
            target: "hotmerge::host",
            plugins,
            "the configuration was read; these keys wait for a restart of the host: {}",
            keys.join(", ")
        ),
    }
}

fn of_watch(event: &WatchEvent) {
    match event {
        WatchEvent::NotStarted { kind, reason } => {
            warn!(target: "hotmerge::watch", "{kind} does not watch the plugin directory: {reason}");
        }
        WatchEvent::Incomplete { kind, reason } => {
            warn!(target: "hotmerge::watch", "{kind}: {reason}");
        }
        WatchEvent::PathUnwatched { reason } => {
            warn!(target: "hotmerge::watch", "the path to the plugin directory is not watched: {reason}");
        }
        WatchEvent::DirectoryUnwatched { reason } => {
            warn!(target: "hotmerge::watch", "the plugin directory is not watched: {reason}");
        }
        WatchEvent::EventsLost { reason } => {
            warn!(target: "hotmerge::watch", "events were lost, so the host scans everything: {reason}");
        }
    }
}

fn of_plugin(plugin: &PluginName, event: &PluginEvent) {
    match event {
        PluginEvent::Outcome(outcome, _, report) => of_outcome(plugin, *outcome, report),
        PluginEvent::Transition(note) => transition(plugin, note),
        PluginEvent::Crashed { failure, stack, .. } => crash(plugin, failure, stack),
        PluginEvent::PanickedAgain(failure) => crash(plugin, failure, &[]),
        PluginEvent::Recovered { state_age, .. } => {
            info!(target: "hotmerge::plugin", %plugin, "started again; {}", continues(*state_age));
        }
        PluginEvent::GivenUp { reason } => {
            error!(target: "hotmerge::plugin", %plugin, "{reason}");
        }
        PluginEvent::NotRestartedYet { what } => {
            let ms = RETRY.as_millis();
            error!(target: "hotmerge::plugin", %plugin, "it {what}; trying again every {ms} ms");
        }
        PluginEvent::DiedWhileReplaced(failure) => {
            warn!(target: "hotmerge::plugin", %plugin, "the worker that was being replaced {failure}");
        }
        PluginEvent::NotGranted { what } => {
            warn!(target: "hotmerge::plugin", %plugin, "{what}");
        }
        PluginEvent::Revived => {
            info!(target: "hotmerge::plugin", %plugin, "an operator asked to start it again");
        }
        PluginEvent::Pinned { version } => info!(
            target: "hotmerge::plugin",
            %plugin,
            %version,
            "pinned by an operator: this version runs, whatever the plugin directory has"
        ),
        PluginEvent::Unpinned => info!(
            target: "hotmerge::plugin",
            %plugin,
            "unpinned by an operator: the plugin directory decides again"
        ),
        PluginEvent::RollbackAsked { version, hash } => info!(
            target: "hotmerge::plugin",
            %plugin,
            %version,
            hash = hash.short(),
            "rollback requested by an operator"
        ),
        PluginEvent::Ending(ending) => of_ending(plugin, ending),
        PluginEvent::StateNotSaved { reason } => {
            warn!(target: "hotmerge::plugin", %plugin, "its state was not saved: {reason}");
        }
        PluginEvent::NotPersisted { reason } => {
            error!(target: "hotmerge::plugin", %plugin, "failed to persist the running version and the operator's choice: {reason}");
        }
        PluginEvent::PersistedAgain => {
            info!(target: "hotmerge::plugin", %plugin, "the running version and the operator's choice are persisted again");
        }
        PluginEvent::RecordUnused { reason } => {
            error!(target: "hotmerge::plugin", %plugin, "its record in the store is not used: {reason}");
        }
        PluginEvent::RecordUnreadable { reason } => {
            error!(target: "hotmerge::plugin", %plugin, "its record in the store cannot be read: {reason}");
        }
        PluginEvent::Postponed { reason } => {
            let ms = RETRY.as_millis();
            error!(target: "hotmerge::plugin", %plugin, "{reason}; retrying every {ms} ms");
        }
        PluginEvent::CpusNotEnforced => warn!(
            target: "hotmerge::worker",
            %plugin,
            "its limit `cpus` is not enforced: no cgroup with the controller `cpu` is delegated to \
             this host"
        ),
        PluginEvent::MemoryUnwatched { reason } => warn!(
            target: "hotmerge::worker",
            %plugin,
            "a worker's memory is checked only when it writes something: {reason}"
        ),
        PluginEvent::ReplyDropped { times, most_bytes } => warn!(
            target: "hotmerge::worker",
            %plugin,
            times,
            "dropped a reply to this plugin: the plugin does not make room for it, and waiting \
             replies may take at most {} MiB",
            most_bytes >> 20
        ),
        PluginEvent::EndedEarly { reason } => error!(
            target: "hotmerge::worker",
            %plugin,
            "failed to start a thread, so a worker is ended at once: {reason}"
        ),
        PluginEvent::WatcherPanicked => {
            error!(target: "hotmerge::worker", %plugin, "the thread of a worker panicked");
        }
    }
}

fn of_outcome(plugin: &PluginName, outcome: Outcome, report: &PluginReport) {
    let short = |hash: Option<Digest>| hash.map_or_else(|| "-".to_owned(), |hash| hash.short());
    let (old, new) = (short(report.old_hash), short(report.hash));
    // More digits are noise.
    let ms = (report.took_ms * 1e3).round() / 1e3;
    let reason = report.reason.as_deref();
    match outcome {
        Outcome::Loaded => {
            info!(target: "hotmerge::plugin", %plugin, hash = new, ms, "loaded");
        }
        Outcome::Reloaded => {
            info!(target: "hotmerge::plugin", %plugin, old, new, ms, "reloaded");
        }
        Outcome::TrialBegun => {
            info!(target: "hotmerge::plugin", %plugin, old, new, "takes a share of the calls");
        }
        Outcome::Refused => {
            let reason = reason.unwrap_or_default();
            error!(target: "hotmerge::plugin", %plugin, hash = new, "refused: {reason}");
        }
        Outcome::Unchanged => match reason {
            Some(reason) => info!(target: "hotmerge::plugin", %plugin, hash = new, "{reason}"),
            None => debug!(target: "hotmerge::plugin", %plugin, hash = new, "unchanged"),
        },
        Outcome::Removed => info!(target: "hotmerge::plugin", %plugin, old, "removed"),
        Outcome::Stopped => info!(target: "hotmerge::plugin", %plugin, old, "stopped"),
    }
}

fn transition(plugin: &PluginName, note: &Note) {
    if tracing::enabled!(target: "hotmerge::plugin", tracing::Level::DEBUG) {
        let TransitionText {
            old_version,
            from,
            to,
            reason,
        } = TransitionText::of(note);
        let old_version = old_version.map(|hash| hash.short());
        debug!(
            target: "hotmerge::plugin",
            %plugin,
            old_version,
            "{from} → {to}: {reason}"
        );
    }
}

fn crash(plugin: &PluginName, failure: &Failure, stack: &[String]) {
    let stack = (!stack.is_empty()).then(|| stack.join(" < "));
    error!(
        target: "hotmerge::plugin",
        %plugin,
        method = failure.method.as_deref(),
        trace_id = failure.trace.as_deref(),
        stack = stack.as_deref(),
        "it {failure}"
    );
}

fn of_ending(plugin: &PluginName, ending: &Ending) {
    match ending {
        Ending::DrainOverdue { calls, limit } => warn!(
            target: "hotmerge::plugin",
            %plugin,
            calls,
            "calls still run on an old version after {} ms; it is kept until they return",
            limit.as_millis()
        ),
        Ending::Drained { took } => trace!(
            target: "hotmerge::plugin",
            %plugin,
            ms = took.as_secs_f64() * 1e3,
            "drained: the last call has returned"
        ),
        Ending::TeardownStuck { limit } => warn!(
            target: "hotmerge::plugin",
            %plugin,
            "teardown has not returned after {} ms; the old version is kept until it does",
            limit.as_millis()
        ),
        Ending::TeardownReturned => info!(
            target: "hotmerge::plugin",
            %plugin,
            "the teardown that took too long has returned"
        ),
        Ending::TeardownFailed { reason } => {
            warn!(target: "hotmerge::plugin", %plugin, "teardown failed: {reason}");
        }
        Ending::Retained => warn!(
            target: "hotmerge::plugin",
            %plugin,
            "an old version cannot be unmapped: a thread holds its thread-locals, or it left \
             threads behind"
        ),
        Ending::CandidateEnded => info!(
            target: "hotmerge::plugin",
            %plugin,
            "ending a candidate that took no calls"
        ),
    }
}
