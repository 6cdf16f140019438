//! What a new configuration changes: which keys need a restart of the host, and which plugins have to
//! start again.
//!
//! Invariant: every key of the configuration is in one of two lists, because both are made by
//! destructuring the whole configuration.
//!
//! Absent on purpose: reading a configuration, and applying it.

use std::{fmt, path::PathBuf};

use hotmerge_instance::settings::{Grant, Isolation, LimitsConfig};
use hotmerge_meta::{PluginName, control::KeyChange};

use super::{Config, HttpConfig, LogConfig, WrongValue};

/// The settings with which a plugin starts.
#[derive(Debug, PartialEq)]
pub(crate) struct StartedWith {
    config: toml::Table,
    isolation: Option<Isolation>,
    allow: Vec<Grant>,
    user: Option<u32>,
    idempotent: Vec<String>,
    limits: LimitsConfig,
}

/// A key and its value, for people.
struct Key {
    name: &'static str,
    value: String,
}

impl Config {
    /// Checks it as a whole, including the plugins' own configurations.
    pub(crate) fn check_with_plugins(&self) -> Result<(), WrongValue> {
        self.check()?;
        self.plugin.keys().try_for_each(|name| {
            let wrong = |error| WrongValue::new(format_args!("plugin.{name}.config"), error);
            self.plugin_json(name).map(drop).map_err(wrong)
        })
    }

    /// The settings with which a plugin starts; if they change, it has to start again.
    pub(crate) fn started_with(&self, plugin: &PluginName) -> StartedWith {
        let own = self.plugin.get(plugin).cloned().unwrap_or_default();
        StartedWith {
            config: own.config,
            isolation: own.isolation.or(self.isolation),
            allow: own.allow,
            user: own.user,
            idempotent: own.idempotent,
            limits: own.limits,
        }
    }

    /// The keys that differ and that a running host cannot change, with their old and new values.
    pub(crate) fn needs_restart(&self, new: &Self) -> Vec<KeyChange> {
        let pairs = self.fixed().into_iter().zip(new.fixed());
        let differ = pairs.filter(|(now, new)| now.value != new.value);
        let change = |(now, new): (Key, Key)| KeyChange {
            key: now.name.to_owned(),
            in_force: now.value,
            configured: new.value,
        };
        differ.map(change).collect()
    }

    /// This configuration, with the running host's values of the keys that it cannot change.
    pub(crate) fn within(mut self, running: &Self) -> Self {
        self.plugin_dir.clone_from(&running.plugin_dir);
        self.runtime_dir.clone_from(&running.runtime_dir);
        self.state_dir.clone_from(&running.state_dir);
        self.keep_versions = running.keep_versions;
        self.settle_ms = running.settle_ms;
        self.rescan_s = running.rescan_s;
        self.watch = running.watch;
        self.poll_ms = running.poll_ms;
        self.worker.clone_from(&running.worker);
        self.degraded = running.degraded;
        self.syscall_policy.clone_from(&running.syscall_policy);
        self.symbol_policy.clone_from(&running.symbol_policy);
        self.untrusted_files = running.untrusted_files;
        self.cgroup.clone_from(&running.cgroup);
        self.http.clone_from(&running.http);
        self.log.records = running.log.records;
        self.log.bytes = running.log.bytes;
        self
    }

    /// The keys that a host uses only at its start.
    fn fixed(&self) -> Vec<Key> {
        let Self {
            plugin_dir,
            runtime_dir,
            state_dir,
            keep_versions,
            settle_ms,
            rescan_s,
            watch,
            poll_ms,
            worker,
            degraded,
            syscall_policy,
            symbol_policy,
            untrusted_files,
            cgroup,
            http,
            log:
                LogConfig {
                    records,
                    bytes,
                    // The embedding program puts these in force.
                    sink: _,
                    route: _,
                },
            // The host reads these whenever it needs them.
            start_ms: _,
            drain_ms: _,
            teardown_ms: _,
            handover_ms: _,
            save_s: _,
            isolation: _,
            symbols: _,
            require_signature: _,
            keys_dir: _,
            signed_order: _,
            restart: _,
            call_ms: _,
            door: _,
            plugin: _,
        } = self;
        let unset = || "not set".to_owned();
        let path = |path: &Option<PathBuf>| {
            let path = path.as_ref();
            path.map_or_else(unset, |path| path.display().to_string())
        };
        [
            ("plugin_dir", path(plugin_dir)),
            ("runtime_dir", path(runtime_dir)),
            ("state_dir", path(state_dir)),
            ("keep_versions", keep_versions.to_string()),
            ("settle_ms", settle_ms.to_string()),
            ("rescan_s", rescan_s.to_string()),
            ("watch", word(watch)),
            ("poll_ms", poll_ms.to_string()),
            ("worker", path(worker)),
            ("degraded", word(degraded)),
            ("syscall_policy", path(syscall_policy)),
            ("symbol_policy", path(symbol_policy)),
            (
                "untrusted_files",
                untrusted_files.map_or_else(unset, |it| word(&it)),
            ),
            ("cgroup", path(cgroup)),
            ("log.records", records.to_string()),
            ("log.bytes", bytes.to_string()),
        ]
        .into_iter()
        .chain(of_http(http))
        .map(|(name, value)| Key { name, value })
        .collect()
    }
}

/// The sockets and limits of the HTTP front, which it takes when it opens.
fn of_http(http: &HttpConfig) -> Vec<(&'static str, String)> {
    let HttpConfig {
        listen,
        names,
        tokens,
        ready,
        max_body_bytes,
        max_reply_bytes,
        max_header_bytes,
        header_ms,
        body_ms,
        deadline_ms,
        max_connections,
        max_calls,
        max_calls_per_client,
        stop_ms,
    } = http;
    let tokens = tokens.as_ref().map(|path| path.display().to_string());
    vec![
        ("http.listen", list(listen)),
        ("http.names", list(names)),
        (
            "http.tokens",
            tokens.unwrap_or_else(|| "not set".to_owned()),
        ),
        ("http.ready", list(ready)),
        ("http.max_body_bytes", max_body_bytes.to_string()),
        ("http.max_reply_bytes", max_reply_bytes.to_string()),
        ("http.max_header_bytes", max_header_bytes.to_string()),
        ("http.header_ms", header_ms.to_string()),
        ("http.body_ms", body_ms.to_string()),
        ("http.deadline_ms", deadline_ms.to_string()),
        ("http.max_connections", max_connections.to_string()),
        ("http.max_calls", max_calls.to_string()),
        (
            "http.max_calls_per_client",
            max_calls_per_client.to_string(),
        ),
        ("http.stop_ms", stop_ms.to_string()),
    ]
}

/// Several values on one line.
fn list(values: &[impl fmt::Display]) -> String {
    let words: Vec<_> = values.iter().map(ToString::to_string).collect();
    format!("[{}]", words.join(", "))
}

/// A choice as written in a configuration.
fn word(choice: &impl fmt::Debug) -> String {
    format!("{choice:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn keys_that_a_running_host_keeps_are_named() {
        let running = config("plugin_dir = \"/a\"\nkeep_versions = 2\ndrain_ms = 5\n");
        let new = config("plugin_dir = \"/b\"\ndrain_ms = 6\ndegraded = \"refuse\"\n");
        let changes = running.needs_restart(&new);
        let told: Vec<_> = changes
            .iter()
            .map(|it| format!("{}: {} → {}", it.key, it.in_force, it.configured))
            .collect();
        assert_eq!(
            told,
            [
                "plugin_dir: /a → /b",
                "keep_versions: 2 → 3",
                "degraded: run → refuse"
            ]
        );
        let within = new.within(&running);
        assert!(running.needs_restart(&within).is_empty());
        assert_eq!(within.drain_ms, 6);
    }

    #[test]
    fn only_what_a_plugin_starts_with_concerns_it() {
        let running = config("[plugin.a.config]\nx = 1\n[plugin.b]\ndrain_ms = 1\n");
        let new = config("[plugin.a.config]\nx = 2\n[plugin.b]\ndrain_ms = 2\n");
        let differs = |new: &Config, name: &str| {
            let name = name.parse().unwrap();
            running.started_with(&name) != new.started_with(&name)
        };
        assert!(differs(&new, "a"));
        assert!(
            !differs(&new, "b"),
            "times are looked up when they are needed"
        );
        assert!(!differs(&new, "c"));
        let host = config("isolation = \"host\"\n[plugin.a]\nisolation = \"process\"\n");
        assert!(differs(&host, "c"));
        let same = config("[plugin.a.config]\nx = 1\n");
        assert!(!differs(&same, "a"));
    }
}
