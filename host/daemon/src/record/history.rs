//! The history of all plugins, in order and bounded.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use hotmerge_meta::{
    PluginName,
    control::{Action, Change, PluginReport, Transition},
};
use jiff::Timestamp;

use hotmerge_lifecycle::{Note, PluginState, Stage};

use crate::record::{
    events::{Cause, Ending, PluginEvent},
    words::{CRASHED, TransitionText, continues, place},
};

/// Most outcomes that are kept.
const OUTCOMES: usize = 4096;
/// Most transitions that are kept.
const TRANSITIONS: usize = 4096;

/// Outcomes, with positions that only grow, and transitions.
#[derive(Debug)]
pub(crate) struct History {
    outcomes: VecDeque<Ended>,
    forgotten: u64,
    transitions: VecDeque<Entry>,
    /// Since when each plugin is in its current state.
    since: HashMap<PluginName, Timestamp>,
}

impl Default for History {
    fn default() -> Self {
        // Full capacity at once: growing by copies would cost more, and the system provides memory only
        // as it is used.
        Self {
            outcomes: VecDeque::with_capacity(OUTCOMES),
            forgotten: 0,
            transitions: VecDeque::with_capacity(TRANSITIONS),
            since: HashMap::new(),
        }
    }
}

impl History {
    /// The position after the newest outcome.
    pub(crate) fn position(&self) -> u64 {
        self.forgotten + self.outcomes.len() as u64
    }

    /// Records the part of an event that belongs here. `at` is the plugin's current state.
    pub(crate) fn record(
        &mut self,
        plugin: &PluginName,
        at: (PluginState, Option<Stage>),
        event: PluginEvent,
    ) {
        let here = |reason: &str| Step::Here(at, reason.to_owned());
        match event {
            PluginEvent::Outcome(_, cause, report) => self.push(cause, *report),
            PluginEvent::Transition(note) => self.note(plugin, note),
            PluginEvent::Recovered {
                state_age,
                is_live: true,
            } => self.add(plugin, Step::Recovered(at, state_age)),
            PluginEvent::Pinned { .. } => self.add(plugin, here("an operator pinned it")),
            PluginEvent::Unpinned => self.add(plugin, here("an operator unpinned it")),
            // The life cycle reports a transition for each of these.
            PluginEvent::Crashed { .. }
            | PluginEvent::GivenUp { .. }
            | PluginEvent::Revived
            | PluginEvent::RollbackAsked { .. }
            // Transitions report what happens to draining versions.
            | PluginEvent::Recovered { is_live: false, .. }
            | PluginEvent::Ending(
                Ending::DrainOverdue { .. }
                | Ending::Drained { .. }
                | Ending::TeardownStuck { .. }
                | Ending::TeardownReturned
                | Ending::TeardownFailed { .. }
                | Ending::Retained
                | Ending::CandidateEnded,
            )
            // These change nothing for callers of the plugin.
            | PluginEvent::PanickedAgain(_)
            | PluginEvent::NotRestartedYet { .. }
            | PluginEvent::DiedWhileReplaced(_)
            | PluginEvent::NotGranted { .. }
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

    fn push(&mut self, cause: Cause, report: PluginReport) {
        if self.outcomes.len() == OUTCOMES {
            self.outcomes.pop_front();
            self.forgotten += 1;
        }
        self.outcomes.push_back(Ended {
            time: Timestamp::now(),
            cause,
            report,
        });
    }

    /// The outcomes at and after a position, oldest first.
    pub(crate) fn since(&self, position: u64) -> impl Iterator<Item = &PluginReport> {
        let skip = position.saturating_sub(self.forgotten);
        self.outcomes
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
            .map(|it| &it.report)
    }

    /// The last changes, at most so many, oldest first. That nothing changed is not a change.
    pub(crate) fn changes(&self, most: usize) -> Vec<Change> {
        let newest = self.outcomes.iter().rev();
        let changes = newest.filter(|it| it.report.action != Action::Unchanged);
        let mut changes: Vec<_> = changes.take(most).map(Ended::tell).collect();
        changes.reverse();
        changes
    }

    fn note(&mut self, plugin: &PluginName, note: Note) {
        let time = Timestamp::now();
        match &note {
            Note::Plugin { to, .. } if to.0 == PluginState::Idle => drop(self.since.remove(plugin)),
            Note::Plugin { .. } => drop(self.since.insert(plugin.clone(), time)),
            Note::Old { .. } | Note::Crash { .. } => {}
        }
        self.add_at(time, plugin, Step::Note(note));
    }

    fn add(&mut self, plugin: &PluginName, step: Step) {
        self.add_at(Timestamp::now(), plugin, step);
    }

    fn add_at(&mut self, time: Timestamp, plugin: &PluginName, step: Step) {
        if self.transitions.len() == TRANSITIONS {
            self.transitions.pop_front();
        }
        self.transitions.push_back(Entry {
            time,
            plugin: plugin.clone(),
            step,
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

    /// Since when a plugin is in its current state, as RFC 3339.
    pub(crate) fn unchanged_since(&self, plugin: &str) -> Option<String> {
        Some(format!("{:.3}", self.since.get(plugin)?))
    }
}

/// The outcome of an attempt, and when it came.
#[derive(Debug)]
struct Ended {
    time: Timestamp,
    cause: Cause,
    report: PluginReport,
}

impl Ended {
    fn tell(&self) -> Change {
        Change {
            time: format!("{:.3}", self.time),
            cause: self.cause.to_owned(),
            report: self.report.clone(),
        }
    }
}

/// A transition in compact form: there are many, and most are never read.
#[derive(Debug)]
struct Entry {
    time: Timestamp,
    plugin: PluginName,
    step: Step,
}

/// An entry of the history.
#[derive(Debug)]
enum Step {
    Note(Note),
    /// Another instance replaced one that crashed.
    Recovered((PluginState, Option<Stage>), Option<Duration>),
    /// An event without a change of state.
    Here((PluginState, Option<Stage>), String),
}

impl Entry {
    fn tell(&self) -> Transition {
        let TransitionText {
            old_version,
            from,
            to,
            reason,
        } = match &self.step {
            Step::Note(note) => TransitionText::of(note),
            Step::Recovered(at, state_age) => TransitionText {
                old_version: None,
                from: CRASHED.to_owned(),
                to: place(*at),
                reason: format!("started again; {}", continues(*state_age)),
            },
            Step::Here(at, reason) => TransitionText {
                old_version: None,
                from: place(*at),
                to: place(*at),
                reason: reason.clone(),
            },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_bounded_and_keeps_the_newest() {
        let mut history = History::default();
        let plugin: PluginName = "a".parse().unwrap();
        for number in 0..TRANSITIONS + 10 {
            let what = number.to_string();
            let at = (PluginState::Active, None);
            history.note(&plugin, Note::Crash { at, what });
        }
        let told: Vec<_> = history.transitions(None).collect();
        assert_eq!(told.len(), TRANSITIONS);
        assert_eq!(told[0].reason, "10");
        let other = "b".parse().unwrap();
        assert_eq!(history.transitions(Some(&other)).count(), 0);
    }
    #[test]
    fn the_newest_changes_are_told_in_order() {
        let mut history = History::default();
        let report = |took_ms, action| PluginReport {
            plugin: "a".parse().unwrap(),
            action,
            old_hash: None,
            hash: None,
            version: None,
            generation: None,
            reason: None,
            pause_ms: None,
            not_durable: None,
            took_ms,
        };
        for number in 0..5 {
            history.push("changed", report(f64::from(number), Action::Reloaded));
            history.push("asked", report(0.0, Action::Unchanged));
        }
        let told = history.changes(2);
        let took: Vec<_> = told.iter().map(|it| it.report.took_ms).collect();
        assert_eq!(took, [3.0, 4.0]);
        assert_eq!(told[1].cause, "changed");
    }
}
