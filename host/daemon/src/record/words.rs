//! Transitions and recoveries in words, for history and log.

use std::time::Duration;

use hotmerge_lifecycle::{Ending, Note, PluginState, Stage};
use hotmerge_meta::Digest;

/// The state of a plugin between a crash and its recovery.
pub(crate) const CRASHED: &str = "crashed";

/// A transition in words.
pub(crate) struct TransitionText {
    pub(crate) old_version: Option<Digest>,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) reason: String,
}

impl TransitionText {
    pub(crate) fn of(note: &Note) -> Self {
        let (old_version, from, to, reason) = match note {
            Note::Plugin { from, to, reason } => {
                (None, place(*from), place(*to), reason.clone().into_owned())
            }
            Note::Crash { at, what } => (None, place(*at), CRASHED.to_owned(), what.clone()),
            Note::Old { hash, from, to } => (
                Some(*hash),
                from.map_or_else(|| "active".to_owned(), |ending| ending.to_string()),
                to.map_or_else(|| "ended".to_owned(), |ending| ending.to_string()),
                why(*to).to_owned(),
            ),
        };
        Self {
            old_version,
            from,
            to,
            reason,
        }
    }
}

/// The state of a plugin.
pub(crate) fn place((state, stage): (PluginState, Option<Stage>)) -> String {
    match stage {
        Some(stage) => format!("{state}/{stage}"),
        None => state.to_string(),
    }
}

/// Why an old version reached this stage of its ending.
fn why(to: Option<Ending>) -> &'static str {
    match to {
        Some(Ending::Draining) => "it takes no new calls",
        Some(Ending::Overdue) => "calls still run on it after the drain time",
        Some(Ending::TearingDown) => "its last call has returned",
        Some(Ending::Stuck) => "its teardown has not returned in time",
        None => "it is torn down",
    }
}

/// The state from which an instance continues after a crash.
pub(crate) fn continues(state_age: Option<Duration>) -> String {
    match state_age {
        Some(age) => format!(
            "it continues from a state saved {:.1} s ago",
            age.as_secs_f64()
        ),
        None => "it starts without state, because none was saved".to_owned(),
    }
}
