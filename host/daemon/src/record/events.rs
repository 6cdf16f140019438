//! Everything that happens to plugins, to their workers, and to the host itself, as one type.
//!
//! Invariant: one function (`HostState::record`) feeds all consumers of events (counters, health, history,
//! subscribers, log), each through a match that names every event, so that none can forget one.
//!
//! Absent on purpose: the reaction to an event.

use std::time::Duration;

use hotmerge_instance::Failure;
use hotmerge_lifecycle::Note;
use hotmerge_meta::{
    Digest, PluginName,
    control::{KeyChange, PluginReport, Problem},
};

/// An event.
#[derive(Debug)]
pub(crate) enum Happened {
    /// An event of one plugin.
    Plugin(PluginName, PluginEvent),
    /// An event of the host itself.
    Host(HostEvent),
}

/// An event of the host itself.
#[derive(Debug)]
pub(crate) enum HostEvent {
    /// Something in the plugin directory cannot be used.
    Problem(Problem),
    /// Signatures are required, and keys are missing or cannot be used.
    KeysUnusable { reason: String },
    /// Another configuration is in force, as far as a running host can take it.
    Configured {
        /// Keys that wait for a restart of the host.
        needs_restart: Vec<KeyChange>,
        /// How many did so before.
        waited_before: usize,
        /// Plugins that start again.
        restarted: Vec<PluginName>,
    },
    /// A configuration was refused; the previous one stays in force.
    ConfigurationRefused { reason: String },
    /// A part of the sandbox is not in place.
    SandboxDegraded { part: String },
    /// A cgroup that was delegated to the host cannot be used.
    NoCgroups { reason: String },
    /// The store's record of signed versions that have run cannot be read.
    NewestUnreadable { reason: String },
    /// An image in the store was damaged, and is written again.
    ImageDamaged { name: String },
    /// The clock's thread panicked.
    ClockPanicked,
    /// Something about how changes are noticed.
    Watch(WatchEvent),
}

/// Something about how changes of the plugin directory are noticed.
#[derive(Debug)]
pub(crate) enum WatchEvent {
    /// A kind of watcher did not start.
    NotStarted { kind: &'static str, reason: String },
    /// A kind of watcher does not watch everything.
    Incomplete { kind: &'static str, reason: String },
    /// The path to the plugin directory is not watched.
    PathUnwatched { reason: String },
    /// The plugin directory is not watched.
    DirectoryUnwatched { reason: String },
    /// Events were lost, so the host scans everything.
    EventsLost { reason: String },
}

/// An event of one plugin.
#[derive(Debug)]
pub(crate) enum PluginEvent {
    /// An attempt ended.
    Outcome(Outcome, Cause, Box<PluginReport>),
    /// The plugin, or one of its old versions, changed its state.
    Transition(Note),
    /// It crashed, or its panic was caught.
    Crashed {
        failure: Failure,
        stack: Vec<String>,
        /// Age of the state from which the next instance continues.
        state_age: Option<Duration>,
    },
    /// A panic was caught in an instance that is already being replaced.
    PanickedAgain(Failure),
    /// Another instance takes the calls after a crash.
    Recovered {
        /// Age of the state from which it continues; `None` without a state.
        state_age: Option<Duration>,
        /// Whether its version takes calls, and is not draining.
        is_live: bool,
    },
    /// It crashed too often, and the host gave it up.
    GivenUp { reason: String },
    /// It crashed, and the system lacks a resource for another worker at the moment.
    NotRestartedYet { what: String },
    /// A worker died while its replacement was starting.
    DiedWhileReplaced(Failure),
    /// It requests rights that the configuration does not grant.
    NotGranted { what: String },
    /// It was started again on request after it had been given up.
    Revived,
    /// An operator pinned the running version.
    Pinned { version: String },
    /// An operator removed the pin.
    Unpinned,
    /// An operator requested a version other than the directory's.
    RollbackAsked { version: String, hash: Digest },
    /// A version that takes no calls is ending.
    Ending(Ending),
    /// A checkpoint of its state failed.
    StateNotSaved { reason: String },
    /// Its record could not be written into the store.
    NotPersisted { reason: String },
    /// Its record is written into the store after a failure.
    PersistedAgain,
    /// Its record in the store is not used.
    RecordUnused { reason: String },
    /// Its record in the store cannot be read.
    RecordUnreadable { reason: String },
    /// Work waits because the system has no free thread.
    Postponed { reason: String },
    /// Its limit `cpus` is not enforced.
    CpusNotEnforced,
    /// Its worker's memory is checked only when the worker writes something.
    MemoryUnwatched { reason: String },
    /// It made no room for a reply, which was dropped.
    ReplyDropped {
        /// How many replies the host has dropped so far.
        times: u64,
        /// Most memory of waiting replies, in bytes.
        most_bytes: usize,
    },
    /// A worker that was replaced ends before its last call, because the system has no free thread.
    EndedEarly { reason: String },
    /// The thread that watches its worker panicked.
    WatcherPanicked,
}

/// Why an attempt began, in one word for programs.
pub(crate) type Cause = &'static str;

/// The outcome of an attempt.
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
    /// The file changed, but not the code that runs.
    Unchanged,
    /// The plugin is gone from the directory and takes no more calls.
    Removed,
    /// The host stops, and the plugin takes no more calls.
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
    /// A teardown failed, or its thread panicked.
    TeardownFailed { reason: String },
    /// An old version cannot be unmapped.
    Retained,
    /// A candidate ends that took no calls.
    CandidateEnded,
}
