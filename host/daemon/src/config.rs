//! The operator's configuration: directories, time limits, and settings per plugin.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) mod change;
mod door;
mod http;
mod log;
#[cfg(test)]
mod numbers;
mod parse_error;
mod read;
mod similar;
pub(crate) mod source;

pub use door::{Allow, DoorConfig, Principal, Role};
pub use hotmerge_instance::settings::{
    Isolation, LimitsConfig, OnDegraded, RestartConfig, Symbols, UntrustedFiles,
};
use hotmerge_instance::{
    rules::text_file::TextFileError,
    settings::{Grant, PluginSettings, PolicyFiles, Settings},
};
use hotmerge_meta::{PluginName, Trust};
pub use http::{HttpConfig, Listen, ListenError};
pub use log::{
    Facility, LogConfig, RouteConfig, SinkConfig, SinkType, SyslogAddress, SyslogAddressError,
};
pub use parse_error::{ParseError, Place};
use serde::Deserialize;

use crate::find::choice::Watch;

/// The directory of the keys that are accepted.
const KEYS_DIR: &str = "/etc/hotmerge/keys.d";

/// The longest time that can be configured, in seconds: 100 years, so that the clock reaches the
/// end of every wait.
const LONGEST_S: u64 = 100 * 365 * 86_400;

/// A pass over a large directory takes some milliseconds.
const LEAST_POLL_MS: u64 = 10;

/// The host's configuration. Every field has a default; the file may name any of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The directory with one directory per package.
    pub plugin_dir: Option<PathBuf>,
    /// The directory of the control socket and the pid file.
    pub runtime_dir: Option<PathBuf>,
    /// How long a package may stay half-written before it counts as a problem, in milliseconds.
    pub settle_ms: u64,
    /// How long a candidate may take to load, start and check itself, in milliseconds.
    pub start_ms: u64,
    /// How long calls may keep running on an old version before it counts as overdue, in
    /// milliseconds.
    pub drain_ms: u64,
    /// How long a plugin may take to tear itself down, in milliseconds.
    pub teardown_ms: u64,
    /// How long calls may wait during a hand-over of state, in milliseconds.
    pub handover_ms: u64,
    /// The directory that persists the last good versions, pins and rollbacks. Without it a host
    /// cannot roll back and does not remember its last run.
    pub state_dir: Option<PathBuf>,
    /// Number of versions kept per plugin.
    pub keep_versions: usize,
    /// Interval of rescans without a hint, in seconds; 0 for never.
    pub rescan_s: u64,
    /// How changes in the plugin directory are noticed. If it is off, only signals, requests and
    /// the clock trigger scans.
    pub watch: Watch,
    /// Interval of scans of the whole directory where it must be polled, in milliseconds.
    pub poll_ms: u64,
    /// The worker program. By default the first `hotmerge-worker` in these directories: that of the
    /// program that runs the host, the one above if cargo has put that program into `examples` or
    /// `deps`, `../libexec/hotmerge` from there, and `/usr/libexec/hotmerge`.
    pub worker: Option<PathBuf>,
    /// Interval of checkpoints while a plugin takes calls, in seconds, and so the maximum age of
    /// the state that it restores after a crash. 0: no checkpoints.
    pub save_s: u64,
    /// The isolation of plugins without their own setting. A program that embeds a host must choose:
    /// without it [`Host::start`](crate::Host::start) fails. `hotmerge serve` takes
    /// [`Isolation::Auto`] if its configuration does not say.
    pub isolation: Option<Isolation>,
    /// What to do where the kernel cannot provide the full sandbox.
    pub degraded: OnDegraded,
    /// Whether plugins are refused for forbidden imports.
    pub symbols: Symbols,
    /// A file that replaces the built-in system call policy; `hotmerge policy syscalls` shows
    /// the format.
    pub syscall_policy: Option<PathBuf>,
    /// A file that replaces the built-in symbol policy; `hotmerge policy symbols` shows the
    /// format.
    pub symbol_policy: Option<PathBuf>,
    /// What to do with a plugin, a policy, a granted path or a worker program that somebody but
    /// root and the host's user could have written. By default a root host refuses it, and other
    /// hosts use it. The configuration of a root host itself is refused in any case.
    pub untrusted_files: Option<UntrustedFiles>,
    /// Whether the host refuses plugins that no key in `keys_dir` has signed.
    pub require_signature: bool,
    /// The directory with the public keys whose signatures count, one per file. By default
    /// `/etc/hotmerge/keys.d`.
    pub keys_dir: Option<PathBuf>,
    /// By what order a plugin with a required signature must not go back behind what has run.
    pub signed_order: SignedOrder,
    /// How often a worker that crashes is replaced.
    pub restart: RestartConfig,
    /// How long a call without a deadline may take before the host kills its worker, in
    /// milliseconds; 0 for no limit.
    pub call_ms: u64,
    /// A cgroup v2 directory that is delegated to this host for its workers. By default the host's
    /// own group, if a service manager has delegated it.
    pub cgroup: Option<PathBuf>,
    /// Who may make which requests.
    pub door: DoorConfig,
    /// Where the host answers HTTP.
    pub http: HttpConfig,
    /// How much of its log the program around the host keeps in memory, and where else its records go.
    pub log: LogConfig,
    /// Settings of single plugins.
    pub plugin: BTreeMap<PluginName, PluginConfig>,
}

/// The operator's settings for one plugin. Missing durations default to the global ones.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PluginConfig {
    /// As [`Config::drain_ms`].
    pub drain_ms: Option<u64>,
    /// As [`Config::teardown_ms`].
    pub teardown_ms: Option<u64>,
    /// As [`Config::handover_ms`].
    pub handover_ms: Option<u64>,
    /// As [`Config::save_s`].
    pub save_s: Option<u64>,
    /// What happens to a new version that cannot take over the running version's state: because that does
    /// not save it in time, its calls do not return, or the new version rejects it.
    pub handover_failed: HandoverFailed,
    /// Runs new versions as canaries: they first take only a share of the calls.
    pub canary: Option<CanaryConfig>,
    /// As [`Config::require_signature`].
    pub require_signature: Option<bool>,
    /// Passed to the plugin as a JSON object at its start.
    pub config: toml::Table,
    /// Its isolation from the host.
    pub isolation: Option<Isolation>,
    /// Grants for a plugin in its own process: `net`, `fs:/path:ro`, `fs:/path:rw`.
    pub allow: Vec<Grant>,
    /// User and group id for the worker of a root host, for files that it may write. By default
    /// each worker has its own user, who owns nothing.
    pub user: Option<u32>,
    /// Methods that the host may retry once if the worker dies during the call.
    pub idempotent: Vec<String>,
    /// Resource limits of its worker.
    pub limits: LimitsConfig,
}

/// By what a plugin with a required signature must not be older than a version that has run. It does
/// not apply to rollbacks, which are the operator's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignedOrder {
    /// Nothing: any signed version is accepted.
    #[default]
    Any,
    /// The version's number.
    Version,
    /// The time at which the signature was made.
    Time,
}

/// What happens to a new version that cannot take over the running version's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandoverFailed {
    /// It is refused, and the running version keeps its state.
    #[default]
    Refuse,
    /// It starts without the state, which is lost: the running version cannot block it.
    Discard,
}

/// The trial of a new version.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CanaryConfig {
    /// The share of calls it takes: more than 0 and less than 1.
    pub share: f64,
    /// The duration of the trial, in seconds.
    pub for_s: f64,
    /// The share of those calls that may fail, from 0 to 1.
    pub max_error_rate: f64,
}

impl CanaryConfig {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.for_s)
    }

    fn check(&self, plugin: &PluginName) -> Result<(), ConfigError> {
        let wrong = |what| {
            Err(ConfigError::Value(format!(
                "`plugin.{plugin}.canary`: {what}"
            )))
        };
        // Comparisons with NaN are false.
        if !(self.share > 0.0 && self.share < 1.0) {
            return wrong("`share` must be more than 0 and less than 1");
        }
        if !(self.for_s >= 0.0 && self.for_s <= 1e9) {
            return wrong("`for_s` must be a number of seconds");
        }
        if !(0.0..=1.0).contains(&self.max_error_rate) {
            return wrong("`max_error_rate` must be from 0 to 1");
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            plugin_dir: None,
            runtime_dir: None,
            settle_ms: 2_000,
            start_ms: 30_000,
            drain_ms: 30_000,
            teardown_ms: 3_000,
            handover_ms: 1_000,
            state_dir: None,
            keep_versions: 3,
            rescan_s: 300,
            watch: Watch::default(),
            poll_ms: 1_000,
            worker: None,
            save_s: 10,
            isolation: None,
            degraded: OnDegraded::default(),
            symbols: Symbols::default(),
            syscall_policy: None,
            symbol_policy: None,
            untrusted_files: None,
            require_signature: false,
            keys_dir: None,
            signed_order: SignedOrder::default(),
            restart: RestartConfig::default(),
            call_ms: 60_000,
            cgroup: None,
            door: DoorConfig::default(),
            http: HttpConfig::default(),
            log: LogConfig::default(),
            plugin: BTreeMap::new(),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is not a configuration.
    #[error(transparent)]
    File(#[from] TextFileError),
    /// A value in it is invalid.
    #[error("configuration: {0}")]
    Value(String),
}

/// A plugin's configuration has a value that JSON cannot represent.
#[derive(Debug, thiserror::Error)]
#[error("its configuration cannot be written as JSON: {0}")]
pub(crate) struct NotJson(#[source] serde_json::Error);

impl Config {
    /// Whose files the host trusts.
    pub fn trust(&self) -> Trust {
        match self.untrusted_files {
            None => Trust::by_default(),
            Some(UntrustedFiles::Refuse) => Trust::own(),
            Some(UntrustedFiles::Use) => Trust::anybody(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.check_sizes()?;
        if let Some((key, least, most)) = self.http.out_of_range(LONGEST_S * 1000) {
            let reason = format!("`http.{key}` must be from {least} to {most}");
            return Err(ConfigError::Value(reason));
        }
        self.log.check().map_err(ConfigError::Value)?;
        if self.keep_versions == 0 {
            let reason = "`keep_versions` must be at least 1".to_owned();
            return Err(ConfigError::Value(reason));
        }
        if self.poll_ms < LEAST_POLL_MS {
            let reason = format!("`poll_ms` must be at least {LEAST_POLL_MS}");
            return Err(ConfigError::Value(reason));
        }
        if let Some((name, _)) = self.plugin.iter().find(|(_, own)| own.user == Some(0)) {
            let reason = format!("`plugin.{name}.user`: a worker is never root");
            return Err(ConfigError::Value(reason));
        }
        // Comparisons with NaN are false.
        let sound = |cpus: f64| (0.01..=1024.0).contains(&cpus);
        if let Some((name, _)) = self
            .plugin
            .iter()
            .find(|(_, own)| own.limits.cpus.is_some_and(|cpus| !sound(cpus)))
        {
            let reason = format!("`plugin.{name}.limits.cpus` must be from 0.01 to 1024");
            return Err(ConfigError::Value(reason));
        }
        self.plugin
            .iter()
            .filter_map(|(name, plugin)| Some((name, plugin.canary?)))
            .try_for_each(|(name, canary)| canary.check(name))
    }

    /// Checks that every time and size is small enough to calculate with.
    fn check_sizes(&self) -> Result<(), ConfigError> {
        let ms = LONGEST_S * 1000;
        let all = [
            ("settle_ms", self.settle_ms, ms),
            ("start_ms", self.start_ms, ms),
            ("drain_ms", self.drain_ms, ms),
            ("teardown_ms", self.teardown_ms, ms),
            ("handover_ms", self.handover_ms, ms),
            ("call_ms", self.call_ms, ms),
            ("rescan_s", self.rescan_s, LONGEST_S),
            ("poll_ms", self.poll_ms, ms),
            ("save_s", self.save_s, LONGEST_S),
            ("restart.within_s", self.restart.within_s, LONGEST_S),
            ("restart.pause_ms", self.restart.pause_ms, ms),
        ];
        check_most("", &all)?;
        for (name, own) in &self.plugin {
            let own = [
                ("drain_ms", own.drain_ms.unwrap_or(0), ms),
                ("teardown_ms", own.teardown_ms.unwrap_or(0), ms),
                ("handover_ms", own.handover_ms.unwrap_or(0), ms),
                ("save_s", own.save_s.unwrap_or(0), LONGEST_S),
                // In bytes it must fit into 64 bits.
                ("limits.memory_mib", own.limits.memory_mib, 1 << 40),
                ("limits.threads", own.limits.threads, 1 << 22),
                ("limits.files", own.limits.files, 1 << 30),
                ("limits.cpu_s", own.limits.cpu_s, LONGEST_S),
            ];
            check_most(&format!("plugin.{name}."), &own)?;
        }
        Ok(())
    }

    pub(crate) fn requires_signature(&self, plugin: &PluginName) -> bool {
        let own = self.plugin.get(plugin);
        own.and_then(|own| own.require_signature)
            .unwrap_or(self.require_signature)
    }

    /// Whether signatures matter for any plugin.
    pub(crate) fn looks_at_signatures(&self) -> bool {
        let mut own = self.plugin.values();
        self.require_signature || own.any(|own| own.require_signature == Some(true))
    }

    pub(crate) fn keys_dir(&self) -> &Path {
        self.keys_dir.as_deref().unwrap_or(Path::new(KEYS_DIR))
    }

    /// The default state directory: `/var/lib/hotmerge` for root,
    /// otherwise `hotmerge` in `$XDG_STATE_HOME`, otherwise in `~/.local/state`.
    pub fn default_state_dir() -> Option<PathBuf> {
        let absolute = |name| {
            let dir = std::env::var_os(name).map(PathBuf::from)?;
            dir.is_absolute().then_some(dir)
        };
        if rustix::process::geteuid().is_root() {
            return Some("/var/lib/hotmerge".into());
        }
        absolute("XDG_STATE_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".local/state")))
            .map(|dir| dir.join("hotmerge"))
    }

    /// The plugin's configuration in the contract's format.
    ///
    /// # Errors
    /// If a value has no counterpart in JSON.
    pub(crate) fn plugin_json(&self, plugin: &PluginName) -> Result<String, NotJson> {
        let table = self.plugin.get(plugin).map(|plugin| &plugin.config);
        table.map_or(Ok("{}".to_owned()), |table| {
            serde_json::to_string(table).map_err(NotJson)
        })
    }

    pub(crate) fn settle(&self) -> Duration {
        Duration::from_millis(self.settle_ms)
    }

    pub(crate) fn start(&self) -> Duration {
        Duration::from_millis(self.start_ms)
    }

    pub(crate) fn drain(&self, plugin: &PluginName) -> Duration {
        self.own(plugin, |own| own.drain_ms, self.drain_ms)
    }

    pub(crate) fn teardown(&self, plugin: &PluginName) -> Duration {
        self.own(plugin, |own| own.teardown_ms, self.teardown_ms)
    }

    pub(crate) fn handover(&self, plugin: &PluginName) -> Duration {
        self.own(plugin, |own| own.handover_ms, self.handover_ms)
    }

    /// Whether a new version of a plugin may go live without the running version's state.
    pub(crate) fn discards_state(&self, plugin: &PluginName) -> bool {
        let own = self.plugin.get(plugin);
        own.is_some_and(|own| own.handover_failed == HandoverFailed::Discard)
    }

    /// Delay from a call to the checkpoint, if enabled.
    pub(crate) fn save(&self, plugin: &PluginName) -> Option<Duration> {
        let own = self.plugin.get(plugin).and_then(|own| own.save_s);
        let period = Duration::from_secs(own.unwrap_or(self.save_s));
        (!period.is_zero()).then_some(period)
    }

    /// The settings that instances need.
    pub(crate) fn settings(&self) -> Settings {
        let of = |name: &PluginName, own: &PluginConfig| PluginSettings {
            isolation: own.isolation,
            allow: own.allow.clone(),
            user: own.user,
            idempotent: own.idempotent.clone(),
            limits: own.limits,
            drain: self.drain(name),
            teardown: self.teardown(name),
        };
        let own = self.plugin.iter();
        Settings {
            trust: self.trust(),
            worker: self.worker.clone(),
            // Nothing runs unsandboxed because a setting is missing.
            isolation: self.isolation.or(Some(Isolation::Process)),
            degraded: self.degraded,
            symbols: self.symbols,
            policies: self.policy_files(),
            restart: self.restart,
            call_limit: (self.call_ms != 0).then(|| Duration::from_millis(self.call_ms)),
            start_limit: self.start(),
            cgroup: self.cgroup.clone(),
            by_default: PluginSettings {
                drain: Duration::from_millis(self.drain_ms),
                teardown: Duration::from_millis(self.teardown_ms),
                ..PluginSettings::default()
            },
            plugins: own
                .map(|(name, own)| (name.clone(), of(name, own)))
                .collect(),
        }
    }

    /// The interval of scans where the directory must be polled.
    pub(crate) fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }

    /// The files that replace the built-in policies.
    pub fn policy_files(&self) -> PolicyFiles {
        PolicyFiles {
            syscalls: self.syscall_policy.clone(),
            symbols: self.symbol_policy.clone(),
            trust: self.trust(),
        }
    }

    pub(crate) fn canary(&self, plugin: &PluginName) -> Option<CanaryConfig> {
        self.plugin.get(plugin)?.canary
    }

    /// The longest time that the end of any plugin may take.
    pub(crate) fn longest_end(&self) -> Duration {
        let all = Duration::from_millis(self.drain_ms + self.teardown_ms);
        let own = self.plugin.keys();
        own.map(|name| self.drain(name) + self.teardown(name))
            .fold(all, Duration::max)
    }

    fn own(
        &self,
        plugin: &PluginName,
        field: impl FnOnce(&PluginConfig) -> Option<u64>,
        all_ms: u64,
    ) -> Duration {
        let own = self.plugin.get(plugin).and_then(field);
        Duration::from_millis(own.unwrap_or(all_ms))
    }

    pub(crate) fn rescan(&self) -> Option<Duration> {
        (self.rescan_s != 0).then(|| Duration::from_secs(self.rescan_s))
    }
}

/// Checks each field against its maximum.
fn check_most(section: &str, fields: &[(&str, u64, u64)]) -> Result<(), ConfigError> {
    match fields.iter().find(|(_, value, most)| value > most) {
        None => Ok(()),
        Some((field, value, most)) => Err(ConfigError::Value(format!(
            "`{section}{field}` is {value}, but must be at most {most}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_numbers_are_refused_by_name() {
        let most = i64::MAX;
        for field in [
            "settle_ms",
            "start_ms",
            "drain_ms",
            "teardown_ms",
            "handover_ms",
            "call_ms",
            "rescan_s",
            "poll_ms",
            "save_s",
            "restart.within_s",
            "restart.pause_ms",
            "plugin.one.drain_ms",
            "plugin.one.teardown_ms",
            "plugin.one.handover_ms",
            "plugin.one.save_s",
            "plugin.one.limits.memory_mib",
            "plugin.one.limits.threads",
            "plugin.one.limits.files",
            "plugin.one.limits.cpu_s",
        ] {
            let config: Config = toml::from_str(&format!("{field} = {most}\n")).unwrap();
            let refused = config.check().unwrap_err().to_string();
            assert!(
                refused.contains(&format!("`{field}` is {most}")),
                "{refused}"
            );
        }
    }

    #[test]
    fn polling_without_a_pause_is_refused() {
        let config: Config = toml::from_str("poll_ms = 9\n").unwrap();
        let refused = config.check().unwrap_err().to_string();
        assert!(
            refused.contains("`poll_ms` must be at least 10"),
            "{refused}"
        );
    }

    #[test]
    fn per_plugin_timeouts_override_global_ones() {
        let text = "drain_ms = 10\nteardown_ms = 20\nhandover_ms = 30\nsave_s = 40\n\
                    [plugin.own]\ndrain_ms = 1\nteardown_ms = 2\nhandover_ms = 3\nsave_s = 0\n";
        let config: Config = toml::from_str(text).unwrap();
        let times = |name: &str| {
            let name = name.parse().unwrap();
            let times = [
                config.drain(&name),
                config.teardown(&name),
                config.handover(&name),
            ];
            (times.map(|time| time.as_millis()), config.save(&name))
        };
        assert_eq!(times("own"), ([1, 2, 3], None));
        let all = Some(Duration::from_secs(40));
        assert_eq!(times("other"), ([10, 20, 30], all));
        assert_eq!(config.longest_end().as_millis(), 30);
    }
}
