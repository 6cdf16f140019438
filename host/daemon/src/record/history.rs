//! What happened to the plugins, in order and bounded.

use std::collections::{HashMap, VecDeque};

use hotmerge_meta::{
    PluginName,
    control::{PluginReport, Transition},
};
use jiff::Timestamp;

use hotmerge_lifecycle::{Ending, Note, Stage, State};

/// How many outcomes are remembered.
const OUTCOMES: usize = 4096;
/// How many transitions are remembered.
const TRANSITIONS: usize = 4096;

/// Outcomes with their positions, which only grow, and transitions.
#[derive(Debug)]
pub(crate) struct History {
    outcomes: VecDeque<PluginReport>,
    forgotten: u64,
    transitions: VecDeque<Entry>,
    /// Since when each plugin is as it is.
    since: HashMap<PluginName, Timestamp>,
}

impl Default for History {
    fn default() -> Self {
        // Their whole size at once: growing by copies would cost more, and the system gives
        // memory only as it is used.
        Self {
            outcomes: VecDeque::with_capacity(OUTCOMES),
            forgotten: 0,
            transitions: VecDeque::with_capacity(TRANSITIONS),
            since: HashMap::new(),
        }
    }
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
        let time = Timestamp::now();
        match &note {
            Note::Plugin { to, .. } if to.0 == State::Idle => drop(self.since.remove(plugin)),
            Note::Plugin { .. } => drop(self.since.insert(plugin.clone(), time)),
            Note::Old { .. } | Note::Crash { .. } => {}
        }
        if self.transitions.len() == TRANSITIONS {
            self.transitions.pop_front();
        }
        self.transitions.push_back(Entry {
            time,
            plugin: plugin.clone(),
            note,
        });
    }

    /// The transitions of one plugin, or of all, oldest first.
    pub(crate) fn transitions(
        &self,
        plugin: Option<&PluginName>,
    ) -> impl Iterator<Item = Transition> {
        self.transitions
            .iter()
            .filter(move |it| plugin.is_none_or(|plugin| it.plugin == *plugin))
            .map(Entry::tell)
    }

    /// Since when a plugin is as it is, RFC 3339.
    pub(crate) fn unchanged_since(&self, plugin: &str) -> Option<String> {
        Some(format!("{:.3}", self.since.get(plugin)?))
    }
}

/// A transition as it is remembered: there are many, and most are never asked for.
#[derive(Debug)]
struct Entry {
    time: Timestamp,
    plugin: PluginName,
    note: Note,
}

impl Entry {
    fn tell(&self) -> Transition {
        let (old_version, from, to, reason) = match &self.note {
            Note::Plugin { from, to, reason } => {
                (None, words(*from), words(*to), reason.clone().into_owned())
            }
            Note::Crash { at, what } => (None, words(*at), "crashed".to_owned(), what.clone()),
            Note::Old { hash, from, to } => (
                Some(*hash),
                from.map_or_else(|| "active".to_owned(), |ending| ending.to_string()),
                to.map_or_else(|| "ended".to_owned(), |ending| ending.to_string()),
                why(*to).to_owned(),
            ),
        };
        Transition {
            time: format!("{:.3}", self.time),
            plugin: self.plugin.clone(),
            old_version,
            from,
            to,
            reason,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_stays() {
        let mut history = History::default();
        let plugin: PluginName = "a".parse().unwrap();
        for number in 0..TRANSITIONS + 10 {
            let what = number.to_string();
            let at = (State::Active, None);
            history.note(&plugin, Note::Crash { at, what });
        }
        let told: Vec<_> = history.transitions(None).collect();
        assert_eq!(told.len(), TRANSITIONS);
        assert_eq!(told[0].reason, "10");
        let other = "b".parse().unwrap();
        assert_eq!(history.transitions(Some(&other)).count(), 0);
    }
}
