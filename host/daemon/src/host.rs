//! The host as a library.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread::JoinHandle,
};

use hotmerge_abi::{ABI_MAJOR, ABI_MINOR};
use hotmerge_lifecycle::Why;
use hotmerge_meta::{
    PackageName, PluginName,
    control::{Change, DebugReport, HostStatus, LogSinkStatus, Status, Transition},
};

mod configuration;
mod figures;
mod requests;
mod start;

pub use start::{RefusedGrant, StartError};

use crate::{
    Config, TARGET,
    config::source::Source,
    find::scan::Dirty,
    plugin::Plugin,
    record::{
        events::{Happened, HostEvent},
        status::Snapshot,
        store::Store,
        subscribers::Subscription,
    },
    supervise::supervisor::Supervisor,
};

/// A task that runs at every scan.
type Upkeep = Box<dyn Fn() + Send + Sync>;
/// The state of the log's sinks.
type LogSinks = Box<dyn Fn() -> Vec<LogSinkStatus> + Send + Sync>;
/// A task that runs with every new configuration.
type AtConfiguration = Box<dyn Fn(&Config) + Send + Sync>;

/// A running host. Stops gracefully when dropped.
pub struct Host {
    supervisor: Arc<Supervisor>,
    clock: Mutex<Option<JoinHandle<()>>>,
    started: jiff::Timestamp,
    /// A task of the embedding program that runs at every scan.
    upkeep: Arc<OnceLock<Upkeep>>,
    /// The source of the configuration, if it can be read again.
    source: OnceLock<Source>,
    /// The state of the log's sinks, if the embedding program has any.
    log_sinks: OnceLock<LogSinks>,
    /// A task of the embedding program that runs with every new configuration.
    at_configuration: OnceLock<AtConfiguration>,
    /// Held while a configuration is put in force.
    reconfiguring: Mutex<()>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("plugin_dir", &self.supervisor.plugin_dir)
            .finish_non_exhaustive()
    }
}

/// The plugin is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no plugin `{plugin}` in `{}`", .plugin_dir.display())]
pub struct UnknownPlugin {
    /// The requested name.
    pub plugin: PluginName,
    /// The host's plugin directory.
    pub plugin_dir: PathBuf,
}

impl Host {
    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.supervisor.config()
    }

    /// A handle to a plugin, valid for all its versions. `None` if the plugin is unknown (yet).
    pub fn plugin(&self, name: &str) -> Option<Arc<Plugin>> {
        self.supervisor.plugin(name)
    }

    /// Scans these packages only, as if a watcher had reported them; does not wait for the reloads.
    /// For embedders that know what they have changed: the cost depends on these packages, not on the
    /// whole directory.
    pub fn look_at(&self, packages: impl IntoIterator<Item = PackageName>) {
        let dirty = Dirty::contents(packages);
        self.supervisor.look(&dirty, &[], Why::Changed);
    }

    /// Rescans the plugin directory now; does not wait for the reloads.
    pub fn rescan(&self) {
        self.rescan_retrying(&[], Why::Changed);
    }

    fn rescan_retrying(&self, retry: &[PluginName], why: Why) -> Vec<PluginName> {
        if let Some(upkeep) = self.upkeep.get() {
            upkeep();
        }
        self.supervisor.persist_unwritten();
        self.supervisor.rescan(retry, why)
    }

    /// The position after the newest outcome: pass it to [`Host::reload`] for a report on
    /// everything that happened since.
    pub fn position(&self) -> u64 {
        self.supervisor.state().history.position()
    }

    /// Waits until the plugin directory has settled and no attempt is in progress.
    pub fn settle(&self) {
        drop(self.supervisor.wait_settled());
    }

    /// The remembered transitions of one plugin or of all, oldest first.
    ///
    /// # Errors
    /// If the plugin is unknown.
    pub fn history(&self, plugin: Option<&PluginName>) -> Result<Vec<Transition>, UnknownPlugin> {
        let state = self.supervisor.state();
        let transitions: Vec<_> = state.history.transitions(plugin).collect();
        match plugin {
            Some(name) if transitions.is_empty() && !state.machine.knows(name) => {
                Err(UnknownPlugin {
                    plugin: name.clone(),
                    plugin_dir: self.supervisor.plugin_dir.clone(),
                })
            }
            _ => Ok(transitions),
        }
    }

    /// What happens from now on. A subscriber may lag behind by `waiting` news; the host never waits for it,
    /// and [`Subscription::lost`] counts events that found no room.
    pub fn subscribe(&self, waiting: usize) -> Subscription {
        self.supervisor.state().subscribers.add(waiting)
    }

    /// The last changes of all plugins, at most so many of those that are remembered, oldest first.
    pub fn changes(&self, most: usize) -> Vec<Change> {
        self.supervisor.state().history.changes(most)
    }

    /// Everything known about one plugin, for debugging.
    ///
    /// # Errors
    /// If the plugin is unknown.
    pub fn debug(&self, plugin: &PluginName) -> Result<DebugReport, UnknownPlugin> {
        self.supervisor.debug(plugin).ok_or_else(|| UnknownPlugin {
            plugin: plugin.clone(),
            plugin_dir: self.supervisor.plugin_dir.clone(),
        })
    }

    /// Removes stored versions of plugins that the directory no longer has, except for pins. Call
    /// it once the host has settled.
    pub fn forget_gone(&self) {
        self.supervisor.forget_gone();
    }

    /// Runs a task of the embedding program at every scan, whatever triggers it. It must be quick. Only
    /// the first call has an effect.
    pub fn at_every_look(&self, upkeep: impl Fn() + Send + Sync + 'static) {
        // A second one would be of the same program.
        let _ = self.upkeep.set(Box::new(upkeep));
    }

    /// Makes the status show what the sinks of the embedding program's log do. Only the first call has an
    /// effect.
    pub fn show_log_sinks(&self, sinks: impl Fn() -> Vec<LogSinkStatus> + Send + Sync + 'static) {
        // A second one would be of the same program.
        let _ = self.log_sinks.set(Box::new(sinks));
    }

    /// The current status of the host and its plugins.
    pub fn status(&self) -> Status {
        let Snapshot {
            counters,
            position,
            plugins,
            problems,
            mut config,
        } = self.supervisor.snapshot();
        config.file = self.source.get().and_then(|source| source.file.clone());
        let watchers = &self.supervisor.watchers;
        let log_sinks = self.log_sinks.get().map_or_else(Vec::new, |sinks| sinks());
        let dropped = log_sinks.iter().map(|it| it.dropped);
        Status {
            host: HostStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                abi: format!("{ABI_MAJOR}.{ABI_MINOR}"),
                target: TARGET.to_owned(),
                plugin_dir: for_everybody(&self.supervisor.plugin_dir),
                state_dir: self
                    .supervisor
                    .store
                    .as_ref()
                    .map(|store| store.dir().to_owned()),
                store_failure: self.supervisor.store.as_ref().and_then(Store::failure),
                started: format!("{:.0}", self.started),
                watch: watchers.describe(self.supervisor.config().poll_ms),
                watchers: watchers.status(),
                rescans: counters.full_looks + counters.hinted_looks,
                full_looks: counters.full_looks,
                last_look: counters.last_look.map(|last| format!("{last:.0}")),
                position,
                retained: counters.retained,
                stuck: counters.stuck,
                overdue: counters.overdue,
                log_dropped: dropped.map(|it| it.host + it.plugins).sum(),
                log_sinks,
                replies_given_up: self.supervisor.workers.replies_given_up(),
                crash_signals: self.supervisor.workers.crash_signals(),
                degraded: self.supervisor.workers.missing().to_vec(),
                limits: self.supervisor.workers.limits(),
                door: None,
                config,
            },
            plugins,
            problems,
        }
    }

    /// Makes [`Host::stop`] wait no longer. Plugins that still run end with the process.
    pub fn hurry(&self) {
        self.supervisor.hurry();
    }

    /// Ends every plugin, each after its last call, and returns how many have not ended
    /// within the drain and teardown times.
    pub fn stop(&self) -> usize {
        let clock = self
            .clock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(clock) = clock else {
            return 0;
        };
        self.supervisor.watchers.stop();
        self.supervisor.clock.stop();
        let left = self.supervisor.stop();
        if clock.join().is_err() {
            let event = HostEvent::ClockPanicked;
            self.supervisor.state().record(Happened::Host(event));
        }
        self.supervisor.workers.close();
        self.supervisor.state().subscribers.close();
        left
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A path for another process, which may have another working directory.
fn for_everybody(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| absolute(path))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
