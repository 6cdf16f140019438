//! What came of a change, as the history and the log tell it.

use hotmerge_lifecycle::{Outcome, Slot, Ticket};
use hotmerge_meta::{
    Digest, PluginName,
    control::{Action as Did, PluginReport},
};

use crate::supervise::state::State;

impl State {
    /// Writes an outcome into the history and the log.
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
            report.pause_ms = paused.map(|pause| pause.as_secs_f64() * 1e3);
        }
        if matches!(outcome, Outcome::Trying) {
            report.hash = Some(attempt.target.meta.hash);
        }
        if let Outcome::Refused(refused) | Outcome::StaysOut(refused) = &outcome
            && refused.meta.hash != attempt.target.meta.hash
        {
            // Told of what runs, which stays: nothing was tried.
            report.took_ms = 0.0;
        }
        fill(&mut report, outcome);
        log(&report);
        self.history.push(report);
    }
}

fn fill(report: &mut PluginReport, outcome: Outcome) {
    let (action, old_hash, hash): (_, Option<Digest>, Option<Digest>) = match outcome {
        Outcome::Loaded => (Did::Loaded, None, report.hash),
        Outcome::Reloaded(old) => (Did::Reloaded, Some(old), report.hash),
        Outcome::Unchanged => (Did::Unchanged, report.hash, report.hash),
        Outcome::Trying => (Did::Trying, report.old_hash, report.hash),
        Outcome::Refused(refused) => {
            report.version = Some(refused.meta.version.clone());
            report.reason = Some(refused.reason);
            (Did::Refused, report.hash, Some(refused.meta.hash))
        }
        Outcome::StaysOut(found) => {
            report.reason = Some(format!(
                "not pinned any more; {} in the plugin directory stays out: {}",
                found.meta.version, found.reason
            ));
            (Did::Unchanged, report.hash, report.hash)
        }
        Outcome::Removed(old) => {
            report.took_ms = 0.0;
            (Did::Removed, Some(old), None)
        }
    };
    report.action = action;
    report.old_hash = old_hash;
    report.hash = hash;
}

fn log(report: &PluginReport) {
    let short = |hash: Option<Digest>| hash.map_or_else(|| "-".to_owned(), |hash| hash.short());
    let (plugin, old, new) = (&report.plugin, short(report.old_hash), short(report.hash));
    // Nobody reads more digits.
    let ms = (report.took_ms * 1e3).round() / 1e3;
    match report.action {
        Did::Loaded => tracing::info!(%plugin, hash = new, ms, "loaded"),
        Did::Reloaded => tracing::info!(%plugin, old, new, ms, "reloaded"),
        Did::Trying => tracing::info!(%plugin, old, new, "takes a share of the calls"),
        Did::Unchanged if let Some(reason) = &report.reason => {
            tracing::info!(%plugin, hash = new, "{reason}");
        }
        Did::Unchanged => tracing::debug!(%plugin, hash = new, "unchanged"),
        Did::Removed => tracing::info!(%plugin, old, "removed"),
        Did::Refused => {
            let reason = report.reason.as_deref().unwrap_or_default();
            tracing::error!(%plugin, hash = new, "refused: {reason}");
        }
    }
}
