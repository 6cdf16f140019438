//! How changes of plugins ended, and how long they took.
//!
//! Invariant: what is kept does not grow with the number of plugins or changes.

use std::collections::BTreeMap;

use hotmerge_meta::{control::PluginReport, figures::ChangeFigure};

use crate::record::{
    events::{Cause, Outcome},
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
    /// Counts and measures a change that has ended.
    pub(crate) fn ended(&mut self, outcome: Outcome, cause: Cause, report: &PluginReport) {
        *self.changes.entry((outcome.name(), cause)).or_default() += 1;
        if matches!(outcome, Outcome::Loaded | Outcome::Reloaded) {
            self.change.add_ms(report.took_ms);
        }
        if let Some(ms) = report.pause_ms {
            self.pause.add_ms(ms);
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
