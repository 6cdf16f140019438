//! How changes of plugins ended, and how long they took.
//!
//! Invariant: what is kept does not grow with the number of plugins or changes.

use std::collections::BTreeMap;

use hotmerge_meta::figures::ChangeFigure;

use crate::record::{
    events::{Cause, Ending, Outcome, PluginEvent},
    spread::Spread,
};

/// What was counted and measured since the host's start.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    changes: BTreeMap<(&'static str, Cause), u64>,
    pub(crate) change: Spread,
    pub(crate) pause: Spread,
    pub(crate) drain: Spread,
}

impl Measured {
    /// Takes what of an event belongs here.
    pub(crate) fn take(&mut self, event: &PluginEvent) {
        match event {
            PluginEvent::Outcome(outcome, cause, report) => {
                *self.changes.entry((outcome.name(), cause)).or_default() += 1;
                if matches!(outcome, Outcome::Loaded | Outcome::Reloaded) {
                    self.change.add_ms(report.took_ms);
                }
                if let Some(ms) = report.pause_ms {
                    self.pause.add_ms(ms);
                }
            }
            PluginEvent::Ending(ending) => match ending {
                Ending::Drained { took } => self.drain.add(*took),
                Ending::DrainOverdue { .. }
                | Ending::TeardownStuck { .. }
                | Ending::TeardownReturned
                | Ending::TeardownFailed { .. }
                | Ending::Retained
                | Ending::CandidateEnded => {}
            },
            PluginEvent::Transition(_)
            | PluginEvent::Crashed { .. }
            | PluginEvent::PanickedAgain(_)
            | PluginEvent::Recovered { .. }
            | PluginEvent::NotRestartedYet { .. }
            | PluginEvent::DiedWhileReplaced(_)
            | PluginEvent::AsksInVain { .. }
            | PluginEvent::GivenUp { .. }
            | PluginEvent::Revived
            | PluginEvent::Pinned { .. }
            | PluginEvent::Unpinned
            | PluginEvent::RollbackAsked { .. }
            | PluginEvent::StateNotSaved { .. }
            | PluginEvent::NotPersisted { .. }
            | PluginEvent::PersistedAgain
            | PluginEvent::Postponed { .. } => {}
        }
    }

    /// How changes ended.
    pub(crate) fn changes(&self) -> Vec<ChangeFigure> {
        let changes = self.changes.iter();
        let told = changes.map(|((outcome, cause), count)| ChangeFigure {
            outcome,
            cause,
            count: *count,
        });
        told.collect()
    }
}
