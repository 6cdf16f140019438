//! Everything that happens to plugins and their directory, as one type.
//!
//! Invariant: every consumer of events (counters, health, history, log) is fed by
//! one function (`HostState::record`), each by a match that names every event: none can forget one.
//!
//! Absent on purpose: what follows from an event.

use std::time::Duration;

use hotmerge_instance::Failure;
use hotmerge_lifecycle::Note;
use hotmerge_meta::{
    Digest, PluginName,
    control::{PluginReport, Problem},
};

/// Something happened.
#[derive(Debug)]
pub(crate) enum Happened {
    /// To one plugin.
    Plugin(PluginName, PluginEvent),
    /// Something in the plugin directory cannot be used.
    Problem(Problem),
}

/// Something happened to a plugin.
#[derive(Debug)]
pub(crate) enum PluginEvent {
    /// A change came to an end.
    Outcome(Outcome, Cause, Box<PluginReport>),
    /// The plugin, or one of its old versions, came to another state.
    Transition(Note),
    /// It crashed, or a panic of it was caught.
    Crashed {
        failure: Failure,
        stack: Vec<String>,
        /// How old the state is that the next instance continues from.
        state_age: Option<Duration>,
    },
    /// A panic was caught in an instance that is being replaced already.
    PanickedAgain(Failure),
    /// Another instance takes the calls after a crash.
    Recovered {
        /// How old the state is that it continues from; `None` without any.
        state_age: Option<Duration>,
        /// Whether it is the version that takes the calls, not one on its way out.
        is_live: bool,
    },
    /// It crashed too often.
    GivenUp { reason: String },
    /// It crashed, and there is no other worker yet for want of what the system does not give.
    NotRestartedYet { what: String },
    /// A worker died while another was being started in its place.
    DiedWhileReplaced(Failure),
    /// It asks for what the configuration does not grant.
    AsksInVain { what: String },
    /// Somebody asked for it after it was given up.
    Revived,
    /// An operator keeps what runs.
    Pinned { version: String },
    /// An operator lets the directory decide again.
    Unpinned,
    /// An operator asked for another version than the directory's.
    RollbackAsked { version: String, hash: Digest },
    /// A version that takes no calls is ending.
    Ending(Ending),
    /// Its state was not saved for the case of a crash.
    StateNotSaved { reason: String },
    /// What runs of it was not written into the store.
    NotPersisted { reason: String },
    /// What runs of it is written into the store, after it could not be.
    PersistedAgain,
    /// Work waits because the system has no thread for it.
    Postponed { reason: String },
}

/// What has led to a change, in one word for programs.
pub(crate) type Cause = &'static str;

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A first version went live.
    Loaded,
    /// A new version replaced the one that ran.
    Reloaded,
    /// A new version takes a share of the calls.
    TrialBegun,
    /// A version was refused; what ran before still runs.
    Refused,
    /// The file changed and what runs did not.
    Unchanged,
    /// The plugin is gone from the directory and takes no calls any more.
    Removed,
    /// The host stops, and the plugin takes no calls any more.
    Stopped,
}

impl Outcome {
    /// In one word, for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Reloaded => "reloaded",
            Self::TrialBegun => "trying",
            Self::Refused => "refused",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
            Self::Stopped => "stopped",
        }
    }
}

/// How a version that takes no calls ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Calls still run on an old version after the drain time.
    DrainOverdue { calls: usize, limit: Duration },
    /// The last call on an old version has returned.
    Drained { took: Duration },
    /// A teardown has not returned in time.
    TeardownStuck { limit: Duration },
    /// A teardown that was stuck has returned.
    TeardownReturned,
    /// A teardown ended in an error, or its thread in a panic.
    TeardownFailed { reason: String },
    /// An old version cannot be unmapped.
    Retained,
    /// A candidate is ended that took no calls.
    CandidateEnded,
}
