//! What happened to the plugins, in order and bounded.

use std::collections::{HashMap, VecDeque};

use hotmerge_meta::{
    PluginName,
    control::{PluginReport, Transition},
};
use jiff::Timestamp;

use crate::lifecycle::{Ending, Note, Stage, State};

/// How many outcomes are remembered.
const OUTCOMES: usize = 4096;
/// How many transitions are remembered.
const TRANSITIONS: usize = 8192;

/// Outcomes with their positions, which only grow, and transitions.
#[derive(Debug, Default)]
pub(crate) struct History {
    outcomes: VecDeque<PluginReport>,
    forgotten: u64,
    transitions: VecDeque<Transition>,
    /// Since when each plugin is as it is.
    since: HashMap<PluginName, Timestamp>,
}

impl History {
    /// The position behind the newest outcome.
    pub(crate) fn position(&self) -> u64 {
        self.forgotten + self.outcomes.len() as u64
    }

    pub(crate) fn push(&mut self, report: PluginReport) {
        if self.outcomes.len() == OUTCOMES {
            self.outcomes.pop_front();
            self.forgotten += 1;
        }
        self.outcomes.push_back(report);
    }

    /// The outcomes at and after a position, oldest first.
    pub(crate) fn since(&self, position: u64) -> impl Iterator<Item = &PluginReport> {
        let skip = position.saturating_sub(self.forgotten);
        self.outcomes
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
    }

    pub(crate) fn note(&mut self, plugin: &PluginName, note: Note) {
        let now = Timestamp::now();
        let (hash, from, to, reason) = match note {
            Note::Plugin { from, to, reason } => {
                if to.0 == State::Idle {
                    self.since.remove(plugin);
                } else {
                    self.since.insert(plugin.clone(), now);
                }
                (None, words(from), words(to), reason.into_owned())
            }
            Note::Old { meta, from, to } => (
                Some(meta.hash),
                from.map_or_else(|| "active".to_owned(), |ending| ending.to_string()),
                to.map_or_else(|| "ended".to_owned(), |ending| ending.to_string()),
                why(to).to_owned(),
            ),
        };
        if self.transitions.len() == TRANSITIONS {
            self.transitions.pop_front();
        }
        self.transitions.push_back(Transition {
            time: format!("{now:.3}"),
            plugin: plugin.clone(),
            old_version: hash,
            from,
            to,
            reason,
        });
    }

    /// The transitions of one plugin, or of all, oldest first.
    pub(crate) fn transitions(
        &self,
        plugin: Option<&PluginName>,
    ) -> impl Iterator<Item = &Transition> {
        self.transitions
            .iter()
            .filter(move |it| plugin.is_none_or(|plugin| it.plugin == *plugin))
    }

    /// Since when a plugin is as it is, RFC 3339.
    pub(crate) fn unchanged_since(&self, plugin: &str) -> Option<String> {
        Some(format!("{:.3}", self.since.get(plugin)?))
    }
}

fn words((state, stage): (State, Option<Stage>)) -> String {
    match stage {
        Some(stage) => format!("{state}/{stage}"),
        None => state.to_string(),
    }
}

/// Why an old version came to this point of its ending.
fn why(to: Option<Ending>) -> &'static str {
    match to {
        Some(Ending::Draining) => "it takes no new calls",
        Some(Ending::Overdue) => "calls still run on it after the drain time",
        Some(Ending::TearingDown) => "its last call has returned",
        Some(Ending::Stuck) => "its teardown has not returned in time",
        None => "it is torn down",
    }
}
