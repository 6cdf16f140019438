//! What `hotmerge debug` shows: a consistent picture of everything that the host knows about one plugin.

use std::time::{Duration, Instant};

use hotmerge_lifecycle::{Choice, Origin, Refused, Slot, Target, Ticket};
use hotmerge_meta::{
    PluginMeta, PluginName,
    control::{
        DebugAttempt, DebugChoice, DebugHealth, DebugRefused, DebugReport, DebugVersion,
        DebugWorker, PluginState,
    },
};

use crate::{
    plugin::Plugin,
    supervise::{
        state::{Health, HostState},
        supervisor::Supervisor,
    },
};

impl Supervisor {
    /// Everything known about a plugin, if it is known.
    pub(crate) fn debug(&self, name: &PluginName) -> Option<DebugReport> {
        let plugin = self.plugin(name.as_str());
        let state = self.state();
        let machine = &state.machine;
        if !machine.knows(name) {
            return None;
        }
        let slot = machine.slot(name.as_str());
        let live = slot.and_then(Slot::live);
        let candidate = slot.and_then(Slot::candidate);
        let retiring = slot.map_or(&[][..], Slot::retiring).iter().map(|old| {
            let ending = Some(old.ending.to_string());
            DebugAttempt {
                ending,
                ..state.debug_attempt(old.ticket, &old.meta)
            }
        });
        Some(DebugReport {
            plugin: name.clone(),
            state: slot.map_or(PluginState::Idle, Slot::state),
            stage: slot.and_then(Slot::stage),
            reason: slot.map_or_else(String::new, |slot| slot.reason().to_owned()),
            since: state.history.unchanged_since(name.as_str()),
            busy: slot.is_some_and(Slot::is_busy),
            directory: machine.found_in_directory(name.as_str()).map(version),
            choice: machine.choice(name).map(choice),
            live: live.map(|live| state.debug_attempt(live.ticket, &live.meta)),
            generation: live.map(|live| live.generation),
            given_up: live.is_some_and(|live| live.given_up),
            candidate: candidate.map(|(ticket, it)| state.debug_attempt(ticket, &it.meta)),
            why: slot.and_then(Slot::why).map(|why| why.text().to_owned()),
            deferred: slot.and_then(Slot::deferred).map(version),
            differs: state.differing.get(name).map(|(_, reason)| reason.clone()),
            retiring: retiring.collect(),
            refused: slot.and_then(Slot::refused).map(refused),
            health: state.health.get(name).map(health).unwrap_or_default(),
            waiting: self.background.waiting(name.as_str()),
            worker: plugin.as_deref().and_then(worker),
        })
    }
}

impl HostState {
    fn debug_attempt(&self, ticket: Ticket, meta: &PluginMeta) -> DebugAttempt {
        let attempt = self.attempts.get(&ticket);
        let package = attempt.and_then(|it| it.target.origin.package());
        DebugAttempt {
            ticket: ticket.0,
            version: meta.version.to_string(),
            hash: meta.hash,
            progress: attempt.map_or("forgotten", |it| it.progress.name()).into(),
            ending: None,
            age_ms: attempt.map(|it| ms(it.began.elapsed())),
            paused_ms: attempt.and_then(|it| Some(ms(it.paused?.elapsed()))),
            package: package.map(ToString::to_string),
        }
    }
}

fn version(target: &Target) -> DebugVersion {
    DebugVersion {
        version: target.meta.version.to_string(),
        hash: target.meta.hash,
        origin: match &target.origin {
            Origin::Package(package) => format!("package {package}"),
            Origin::Store => "store".to_owned(),
            Origin::Running(_) => "running instance".to_owned(),
        },
        takes_state: target.takes_state,
    }
}

fn choice(choice: &Choice) -> DebugChoice {
    DebugChoice {
        version: choice.meta.version.to_string(),
        hash: choice.meta.hash,
        pinned: choice.pinned,
        instead_of: choice.instead_of,
    }
}

fn refused(refused: &Refused) -> DebugRefused {
    DebugRefused {
        version: refused.meta.version.to_string(),
        hash: refused.meta.hash,
        reason: refused.reason.clone(),
        lasting: refused.lasting,
    }
}

fn health(health: &Health) -> DebugHealth {
    let due_in = |due: Option<(Instant, Ticket)>| {
        due.map(|(due, _)| ms(due.saturating_duration_since(Instant::now())))
    };
    DebugHealth {
        restarts: health.restarts,
        retained: health.retained,
        last_failure: health.last.clone(),
        replace_in_ms: due_in(health.replace),
        save_in_ms: due_in(health.save),
    }
}

fn worker(plugin: &Plugin) -> Option<DebugWorker> {
    plugin.peek(|version| {
        let worker = version.instance.worker()?;
        Some(DebugWorker {
            phase: worker.phase(),
            status: worker.status(),
        })
    })
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
