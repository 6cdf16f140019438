//! What happened to the plugins, in order and bounded.

use std::collections::VecDeque;

use hotmerge_meta::control::PluginReport;

/// How many outcomes are remembered.
const LIMIT: usize = 4096;

/// Outcomes with their positions. Positions only grow.
#[derive(Debug, Default)]
pub(crate) struct History {
    entries: VecDeque<PluginReport>,
    forgotten: u64,
}

impl History {
    /// The position behind the newest outcome.
    pub(crate) fn position(&self) -> u64 {
        self.forgotten + self.entries.len() as u64
    }

    pub(crate) fn push(&mut self, report: PluginReport) {
        if self.entries.len() == LIMIT {
            self.entries.pop_front();
            self.forgotten += 1;
        }
        self.entries.push_back(report);
    }

    /// The outcomes at and after a position, oldest first.
    pub(crate) fn since(&self, position: u64) -> impl Iterator<Item = &PluginReport> {
        let skip = position.saturating_sub(self.forgotten);
        self.entries
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
    }
}
