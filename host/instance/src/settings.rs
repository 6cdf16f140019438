//! What an operator decides about instances, as plain data.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use hotmerge_meta::{PluginName, Trust};
pub use hotmerge_sandbox::Grant;
use hotmerge_sandbox::Limits;
use serde::Deserialize;

use crate::cancel::Cancel;

/// How a plugin is kept apart from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// In a sandboxed process of its own.
    Process,
    /// In the host's own process: for code that is trusted like the host's.
    Host,
    /// In its own process where the system can provide one, otherwise in the host's, which
    /// is logged as a warning.
    Auto,
}

/// What to do where the kernel cannot provide the full sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDegraded {
    /// Run plugins in the sandbox that works, and report what is missing.
    #[default]
    Run,
    /// Refuse to run plugins in it.
    Refuse,
}

/// What to do with files that another user could have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UntrustedFiles {
    /// They are refused.
    Refuse,
    /// They are used like any others.
    Use,
}

/// Whether the symbol policy is enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symbols {
    /// Plugins that break it are refused.
    #[default]
    Enforce,
    /// It is ignored.
    Off,
}

/// How often an instance that crashes is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestartConfig {
    /// Most crashes within `within_s`; one more ends the trying.
    pub most: u32,
    /// In seconds.
    pub within_s: u64,
    /// Pause before the second replacement in a row, in milliseconds; it doubles with each
    /// further one, up to 2 s. The first one has no pause.
    pub pause_ms: u64,
}

impl Default for RestartConfig {
    fn default() -> Self {
        Self {
            most: 5,
            within_s: 10,
            pause_ms: 20,
        }
    }
}

/// How much a worker may use.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Private memory in MiB.
    pub memory_mib: u64,
    /// Threads, those that take calls included.
    pub threads: u64,
    /// Open files.
    pub files: u64,
    /// Processor time over a worker's whole life in seconds; 0 for no limit.
    pub cpu_s: u64,
    /// Processors that it may use at a time, such as 0.5: only where a cgroup with the
    /// controller `cpu` is delegated to the host.
    pub cpus: Option<f64>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            memory_mib: limits.memory_bytes >> 20,
            threads: limits.threads,
            files: limits.files,
            cpu_s: limits.cpu_s,
            cpus: None,
        }
    }
}

impl From<LimitsConfig> for Limits {
    fn from(config: LimitsConfig) -> Self {
        Self {
            memory_bytes: config.memory_mib << 20,
            threads: config.threads,
            files: config.files,
            cpu_s: config.cpu_s,
            cpu_permille: config.cpus.map(|cpus| (cpus * 1e3) as u64),
        }
    }
}

/// Settings for all instances of a host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose files are believed.
    pub trust: Trust,
    /// The worker program; by default it is searched for.
    pub worker: Option<PathBuf>,
    /// How plugins are kept unless they say otherwise; by default [`Isolation::Auto`].
    pub isolation: Option<Isolation>,
    /// What to do where the kernel cannot provide the full sandbox.
    pub degraded: OnDegraded,
    /// Whether plugins are refused for what they import.
    pub symbols: Symbols,
    /// The files that replace the built-in policies.
    pub policies: PolicyFiles,
    /// How often a worker that crashes is replaced.
    pub restart: RestartConfig,
    /// How long a call without a deadline may take in a worker; `None` for no limit.
    pub call_limit: Option<Duration>,
    /// How long an instance may take to start.
    pub start_limit: Duration,
    /// A delegated cgroup.
    pub cgroup: Option<PathBuf>,
    /// Settings for plugins that are not named below.
    pub by_default: PluginSettings,
    /// Settings for single plugins.
    pub plugins: BTreeMap<PluginName, PluginSettings>,
}

/// Files instead of the built-in policies; `None` for those that come with the host.
#[derive(Clone, Debug, Default)]
pub struct PolicyFiles {
    /// Of system calls.
    pub syscalls: Option<PathBuf>,
    /// Of symbols.
    pub symbols: Option<PathBuf>,
    /// Whose files are believed.
    pub trust: Trust,
}

/// Settings for the instances of one plugin.
#[derive(Clone, Debug, Default)]
pub struct PluginSettings {
    /// How it is kept apart from the host.
    pub isolation: Option<Isolation>,
    /// What it may do beyond computing, in a process of its own.
    pub allow: Vec<Grant>,
    /// User and group that its worker runs as if the host is root.
    pub user: Option<u32>,
    /// Methods that may be called once more if the worker dies during the call.
    pub idempotent: Vec<String>,
    /// How much its worker may use.
    pub limits: LimitsConfig,
    /// How long calls on a worker that was replaced may go on.
    pub drain: Duration,
    /// How long it may take to save its state, or to tear itself down.
    pub teardown: Duration,
}

/// The settings of one instance, for as long as it lives.
#[derive(Clone, Copy, Debug)]
pub struct StartWith<'a> {
    /// Settings for instances.
    pub settings: &'a Settings,
    /// The plugin's own configuration, as a JSON object.
    pub config: &'a str,
    /// Ends the worker while the start is under way.
    pub break_off: &'a Cancel,
}

impl Settings {
    /// How a plugin is to be kept, if anything says so.
    pub fn isolation_of(&self, plugin: &str) -> Option<Isolation> {
        self.of(plugin).isolation.or(self.isolation)
    }

    /// Settings for a plugin.
    pub fn of(&self, plugin: &str) -> &PluginSettings {
        self.plugins.get(plugin).unwrap_or(&self.by_default)
    }
}
