//! The status of a host and its plugins. Field names are stable: programs read them.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{LogSinkStatus, Problem};
use crate::{Digest, PluginName};

/// The state of a plugin as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginState {
    /// Known, but no version runs or is starting.
    Idle,
    /// A change was detected and is being verified, has not settled, or waits for a required
    /// plugin.
    Detecting,
    /// The plugin was removed from the directory and its last version is being retired.
    Unloading,
    /// A verified version is starting, taking over state, or being tried.
    Reloading,
    /// A version takes calls.
    Active,
    /// No version takes calls: the last candidate was refused, or the live version crashed too
    /// often.
    Error,
}

impl fmt::Display for PluginState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Detecting => "detecting",
            Self::Unloading => "unloading",
            Self::Reloading => "reloading",
            Self::Active => "active",
            Self::Error => "error",
        })
    }
}

/// A candidate's progress; later stages compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its file is being read and compared.
    Verifying,
    /// Its file and its meta do not match yet.
    Settling,
    /// It is verified, but its requirements are not active yet.
    Waiting,
    /// It is being loaded and started.
    Starting,
    /// It has started; calls wait while it takes over the state of the live version.
    HandingOver,
    /// It takes a share of the calls as a canary.
    Trying,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verifying => "verifying",
            Self::Settling => "settling",
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::HandingOver => "handing-over",
            Self::Trying => "trying",
        })
    }
}

/// A host and its plugins at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The host itself.
    pub host: HostStatus,
    /// Every plugin it knows, by name.
    pub plugins: Vec<PluginStatus>,
    /// Packages and files in the plugin directory that cannot be used, and why.
    pub problems: Vec<Problem>,
}

/// The host itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostStatus {
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// The contract it offers to plugins.
    pub abi: String,
    /// Target triple of its plugins.
    pub target: String,
    /// The plugin directory.
    pub plugin_dir: PathBuf,
    /// The store of the last good versions, if any.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// Why that cannot be written; none if it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_failure: Option<StoreFailure>,
    /// When it started, RFC 3339.
    pub started: String,
    /// The kinds of watchers that watch, and whether and why the directory is polled; or `off: ` and
    /// why nothing is watched.
    pub watch: String,
    /// Each kind of watcher that is wanted.
    #[serde(default)]
    pub watchers: Vec<WatcherStatus>,
    /// Number of scans of the plugin directory, or of packages in it.
    pub rescans: u64,
    /// How many of them were scans of all packages.
    #[serde(default)]
    pub full_looks: u64,
    /// The time of the last scan, RFC 3339.
    #[serde(default)]
    pub last_look: Option<String>,
    /// Position in the history; it grows with every transition.
    pub position: u64,
    /// Old versions whose memory could not be freed.
    pub retained: u64,
    /// Old versions whose teardown is overdue and still running.
    pub stuck: u64,
    /// How often calls on an old version took longer than the drain time.
    pub overdue: u64,
    /// Log records that found no room, of all sinks.
    pub log_dropped: u64,
    /// The sinks of the log.
    #[serde(default)]
    pub log_sinks: Vec<LogSinkStatus>,
    /// Replies to calls between plugins that were dropped because too many waited.
    #[serde(default)]
    pub replies_given_up: u64,
    /// Number of received SIGUSR1, with which workers report a crash. Simultaneous signals count
    /// as one.
    #[serde(default)]
    pub crash_signals: u64,
    /// Parts of the sandbox that this system does not provide; empty if complete.
    #[serde(default)]
    pub degraded: Vec<String>,
    /// What enforces the workers' limits: rlimits, and the controllers of a cgroup.
    #[serde(default)]
    pub limits: String,
    /// Requests at the control socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<DoorStatus>,
    /// The configuration.
    #[serde(default)]
    pub config: ConfigStatus,
}

/// Which configuration is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigStatus {
    /// The file, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// When the configuration in force was read, RFC 3339.
    pub since: String,
    /// Keys whose new values wait for a restart of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<KeyChange>,
    /// That the file was read since and cannot be used, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<ConfigRefused>,
}

/// A key of a configuration whose new value waits for a restart of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The key.
    pub key: String,
    /// The value in force.
    pub in_force: String,
    /// The value in the file.
    pub configured: String,
}

/// A configuration that cannot be used; the one before is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRefused {
    /// When it was read, RFC 3339.
    pub time: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Requests at the control socket since the host's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DoorStatus {
    /// Connections accepted.
    pub connections: u64,
    /// Open connections.
    pub open: u64,
    /// Requests.
    pub requests: u64,
    /// Connections and requests that were refused for lack of a role.
    pub denied: u64,
    /// Connections and requests that were refused for lack of room.
    pub busy: u64,
    /// Connections that were closed to make room for others.
    pub closed: u64,
}

/// One kind of watcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherStatus {
    /// `inotify` or `fanotify`.
    pub name: String,
    /// What one watch or mark covers.
    pub scope: String,
    /// Number of directories in which it notices changes.
    pub directories: u64,
    /// Number of its events in these directories since the host's start.
    pub events: u64,
    /// How often it lost events, so that the host scanned everything.
    pub overflows: u64,
    /// Why it does not watch, or not all packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Versions, pins and rollbacks that would be forgotten if the host ended now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFailure {
    /// Since when something is not written down, RFC 3339.
    pub since: String,
    /// Why.
    pub reason: String,
    /// Of which plugins.
    pub plugins: Vec<PluginName>,
}

/// A verified signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedStatus {
    /// The name that the operator gave the key.
    pub by: String,
    /// The key's number.
    pub key: String,
    /// The signer's comment, which is signed too.
    pub comment: String,
}

/// One plugin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PluginStatus {
    /// Its name.
    pub name: String,
    /// Version that runs; if none runs, of the candidate or of the refused version.
    pub version: Option<String>,
    /// Digest of the running version.
    pub hash: Option<Digest>,
    /// Its state in the life cycle.
    pub state: PluginState,
    /// Its candidate's stage, if it has one.
    #[serde(default)]
    pub stage: Option<Stage>,
    /// Why it came to this state.
    #[serde(default)]
    pub reason: String,
    /// Since when it is in this state, RFC 3339.
    #[serde(default)]
    pub since: Option<String>,
    /// Counts the versions that went live, from 1; 0 if none runs.
    pub generation: u64,
    /// Its isolation from the host: `host` means none.
    pub isolation: Option<String>,
    /// The package it is in.
    pub package: Option<String>,
    /// Who signed it, if the host has verified that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedStatus>,
    /// Where its table lies in the host's memory, in hexadecimal.
    pub address: Option<String>,
    /// Number of restarts after crashes.
    #[serde(default)]
    pub restarts: u64,
    /// Its last failure.
    #[serde(default)]
    pub last_failure: Option<FailureStatus>,
    /// Work that is queued because the system has no thread or process available, or because the
    /// plugin's directory changes faster than its versions start.
    #[serde(default)]
    pub waiting: Vec<String>,
    /// The checkpoint from which it would continue after a crash.
    #[serde(default)]
    pub saved: Option<SavedStatus>,
    /// Its worker, if it runs in its own process.
    #[serde(default)]
    pub worker: Option<WorkerStatus>,
    /// Requests in its meta that were not granted: `fs:/path`, `net`.
    #[serde(default)]
    pub not_granted: Vec<String>,
    /// Calls that have ended, in whatever way.
    #[serde(default)]
    pub calls: u64,
    /// Calls that were answered with an error.
    pub calls_failed: u64,
    /// Calls cancelled by their callers or by disconnecting clients; not counted as failed.
    #[serde(default)]
    pub calls_cancelled: u64,
    /// Calls that panicked.
    pub calls_panicked: u64,
    /// Old versions of it whose memory could not be freed.
    pub retained: u64,
    /// Old versions that have not ended yet.
    pub ending: Vec<EndingStatus>,
    /// The last refused version since one went live.
    pub refused: Option<RefusedStatus>,
    /// Whether it runs with an earlier configuration than the one in force.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outdated: bool,
    /// Whether it is pinned.
    #[serde(default)]
    pub pinned: bool,
    /// The hash in the directory that was rolled back.
    #[serde(default)]
    pub rolled_back: Option<Digest>,
    /// The versions available for rollback, newest first.
    #[serde(default)]
    pub kept: Vec<KeptStatus>,
    /// The version that takes a share of the calls.
    #[serde(default)]
    pub canary: Option<CanaryStatus>,
}

/// A version in the host's store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptStatus {
    /// Its version.
    pub version: String,
    /// Its digest.
    pub hash: Digest,
}

/// A version that takes a share of the calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CanaryStatus {
    /// Its version.
    pub version: String,
    /// Its digest.
    pub hash: Digest,
    /// How many calls it took.
    pub calls: u64,
    /// How many of them failed.
    pub failed: u64,
}

/// The process in which a plugin runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number; absent while none runs.
    pub pid: Option<i32>,
    /// Private memory that it uses.
    pub memory_bytes: Option<u64>,
    /// Processor time that it has used.
    pub cpu_ms: Option<u64>,
    /// Time from the start of the process until it could take calls: sandboxed, loaded, started
    /// and checked.
    #[serde(default)]
    pub start_ms: f64,
    /// Parts of its sandbox that are not in place.
    pub degraded: Vec<String>,
    /// Its log records that found no room.
    pub log_dropped: u64,
}

/// A failure of a running plugin.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FailureStatus {
    /// When, RFC 3339.
    pub time: String,
    /// What happened, phrased to follow "it": `was killed by SIGSEGV at 0x8`.
    pub what: String,
    /// The method.
    pub method: Option<String>,
    /// The trace of the call, in hexadecimal.
    pub trace_id: Option<String>,
    /// The stack of a panic, innermost frame first: function names, or file offsets without
    /// symbols.
    #[serde(default)]
    pub stack: Vec<String>,
    /// Age of the checkpoint that the next instance restored, in milliseconds; absent if there
    /// was none.
    pub state_age_ms: Option<u64>,
}

impl fmt::Display for FailureStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, trace) = (self.method.as_deref(), self.trace_id.as_deref());
        sentence(f, &self.what, method, trace)
    }
}

/// A checkpoint for the case of a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedStatus {
    /// When, RFC 3339.
    pub time: String,
    /// The version that saved it.
    pub version: String,
    /// Its size.
    pub bytes: u64,
}

/// An old version that has not ended yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndingStatus {
    /// Digest of the version.
    pub hash: Digest,
    /// `draining`, `overdue`, `teardown` or `stuck`.
    pub state: String,
}

/// A version that was refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefusedStatus {
    /// Digest of the version.
    pub hash: Digest,
    /// Why.
    pub reason: String,
}

/// What happened, and in which call.
pub fn sentence(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    method: Option<&str>,
    trace: Option<&str>,
) -> fmt::Result {
    f.write_str(what)?;
    if let Some(method) = method {
        write!(f, " in `{method}`")?;
    }
    match trace {
        Some(trace) => write!(f, " (trace {trace})"),
        None => Ok(()),
    }
}
