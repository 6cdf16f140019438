//! Everything that a host knows about one plugin, for debugging the host or the plugin.
//!
//! Unlike the status, this follows the host's internals: fields come and go with them.

use serde::{Deserialize, Serialize};

use super::{FailureStatus, PluginState, Stage, WorkerStatus};
use crate::{Digest, PluginName};

/// One plugin, as its host sees it at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DebugReport {
    /// Its name.
    pub plugin: PluginName,
    /// Where it is in its life.
    pub state: PluginState,
    /// How far its candidate is, if it has one.
    pub stage: Option<Stage>,
    /// Why it came to this state.
    pub reason: String,
    /// Since when it is in this state, RFC 3339.
    pub since: Option<String>,
    /// Whether the host waits for an outcome.
    pub busy: bool,
    /// Its version in the plugin directory.
    pub directory: Option<DebugVersion>,
    /// The version that an operator chose instead.
    pub choice: Option<DebugChoice>,
    /// The version that takes calls.
    pub live: Option<DebugAttempt>,
    /// Counts the versions that went live, from 1.
    pub generation: Option<u64>,
    /// Whether the live version crashed too often and takes no calls.
    pub given_up: bool,
    /// The version that is being brought up.
    pub candidate: Option<DebugAttempt>,
    /// Why the candidate is brought up.
    pub why: Option<String>,
    /// The version that follows once the hand-over of state is over.
    pub deferred: Option<DebugVersion>,
    /// How file and meta of the candidate differ.
    pub differs: Option<String>,
    /// Versions on their way out.
    #[serde(rename = "olds")]
    pub retiring: Vec<DebugAttempt>,
    /// The last version that was refused.
    pub refused: Option<DebugRefused>,
    /// Its crashes.
    pub health: DebugHealth,
    /// Work that waits for resources of the system.
    pub waiting: Vec<String>,
    /// The worker of the live version.
    pub worker: Option<DebugWorker>,
}

/// A version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DebugVersion {
    /// Its number.
    pub version: String,
    /// Its digest.
    pub hash: Digest,
    /// Where its bytes are: a package, the store, or the instance that runs.
    pub origin: String,
    /// Whether it takes over the state of the version that runs.
    pub takes_state: bool,
}

/// A version that was begun, and how far it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DebugAttempt {
    /// Tells the attempts of a host apart.
    pub ticket: u64,
    /// Its number.
    pub version: String,
    /// Its digest.
    pub hash: Digest,
    /// How far it has come.
    pub progress: String,
    /// How far an old version is in its ending.
    pub ending: Option<String>,
    /// Since it was begun, in milliseconds.
    pub age_ms: Option<u64>,
    /// How long calls have waited for it, in milliseconds.
    pub paused_ms: Option<u64>,
    /// Its package, unless it comes from the store or from a running instance.
    pub package: Option<String>,
}

/// An operator's choice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DebugChoice {
    /// The version's number.
    pub version: String,
    /// The version's digest.
    pub hash: Digest,
    /// Whether it stays whatever the directory says.
    pub pinned: bool,
    /// The hash in the directory that was rolled back.
    pub instead_of: Option<Digest>,
}

/// A refused version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DebugRefused {
    /// The version's number.
    pub version: String,
    /// The version's digest.
    pub hash: Digest,
    /// Why.
    pub reason: String,
    /// Whether it is not tried again without a request.
    pub lasting: bool,
}

/// A plugin's crashes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DebugHealth {
    /// How often it was started again.
    pub restarts: u64,
    /// How many of its versions could not be unmapped.
    pub retained: u64,
    /// Its last failure.
    pub last_failure: Option<FailureStatus>,
    /// In how many milliseconds it is to be replaced.
    pub replace_in_ms: Option<u64>,
    /// In how many milliseconds its state is to be saved.
    pub save_in_ms: Option<u64>,
}

/// A worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DebugWorker {
    /// Its phase: `starting`, `live`, `pausing`, `given up` or `ended`, and why.
    pub phase: String,
    /// Its process.
    pub status: WorkerStatus,
}
