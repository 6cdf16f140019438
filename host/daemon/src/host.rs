//! The host as a library.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use hotmerge_abi::{ABI_MAJOR, ABI_MINOR};
use hotmerge_instance::{
    NoWorkers, Workers,
    rules::{policies, text_file::TextFileError},
};
use hotmerge_lifecycle::ChoiceError;
use hotmerge_meta::{
    PluginName,
    control::{
        Action, DebugReport, HostStatus, PluginReport, ReloadParams, ReloadReport, Status,
        Transition,
    },
};

use crate::{
    Config, TARGET,
    config::ConfigError,
    find::{hints::Hints, scan},
    plugin::Plugin,
    record::{
        status::Snapshot,
        store::{Store, StoreError},
    },
    supervise::{keeping::WishError, state::State, supervisor::Supervisor},
};

/// What is done at every look.
type Upkeep = Box<dyn Fn() + Send + Sync>;

/// A running host. Stops gracefully when dropped.
pub struct Host {
    supervisor: Arc<Supervisor>,
    clock: Mutex<Option<JoinHandle<()>>>,
    hints: Arc<Hints>,
    started: jiff::Timestamp,
    /// What the program around the host looks after whenever the host looks.
    upkeep: Arc<OnceLock<Upkeep>>,
    /// How many log records found no room, if the program around the host counts them.
    log_dropped: OnceLock<fn() -> u64>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("plugin_dir", &self.supervisor.plugin_dir)
            .finish_non_exhaustive()
    }
}

/// Why a host does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No plugin directory was named.
    #[error(
        "no plugin directory; pass `--plugin-dir DIR` or set `plugin_dir` in the configuration"
    )]
    NoPluginDir,
    /// The plugin directory cannot be used.
    #[error("{0}; create it, or pass another `--plugin-dir`")]
    PluginDir(String),
    /// Something in the configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A policy of the operator's cannot be used.
    #[error(transparent)]
    Policy(#[from] TextFileError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StoreError),
    /// The system has no thread for the host.
    #[error("failed to start the host's own thread: {0}")]
    Thread(std::io::Error),
}

/// A host knows nothing of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no plugin `{plugin}` in `{}`", .plugin_dir.display())]
pub struct UnknownPlugin {
    /// The name that was asked for.
    pub plugin: PluginName,
    /// Where the host looks for plugins.
    pub plugin_dir: PathBuf,
}

/// What became of a plugin that did not change and is asked for after it was given up.
const REVIVED: &str = "it crashed too often and had been given up; it is started again";

impl Host {
    /// Starts a host and loads what the plugin directory has, up to what has not settled.
    ///
    /// # Errors
    /// See [`StartError`]. Bad plugins are no error: they are refused, and [`Host::status`]
    /// says why.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let plugin_dir = Self::check(&config)?;
        let watching = config.watch;
        let periodic = config.rescan();
        let store = config
            .state_dir
            .as_ref()
            .map(|dir| Store::open(dir, config.keep_versions))
            .transpose()?;
        let supervisor = Arc::new(Supervisor::new(config, plugin_dir, store));
        let hint = {
            let supervisor = Arc::downgrade(&supervisor);
            move || {
                if let Some(supervisor) = supervisor.upgrade() {
                    supervisor.clock.hint();
                }
            }
        };
        let dir = supervisor.plugin_dir.clone();
        let hints = Arc::new(Hints::new(dir, watching, Arc::new(hint)));
        let upkeep = Arc::new(OnceLock::<Upkeep>::new());
        let clock = {
            let (host, hints) = (Arc::clone(&supervisor), Arc::clone(&hints));
            let upkeep = Arc::clone(&upkeep);
            let run = move || {
                host.clock.run(periodic, || {
                    host.expire();
                    if let Some(upkeep) = upkeep.get() {
                        upkeep();
                    }
                    hints.keep();
                    host.rescan(&[]);
                });
            };
            thread::Builder::new()
                .name("clock".into())
                .spawn(run)
                .map_err(StartError::Thread)?
        };
        let host = Self {
            supervisor,
            clock: Mutex::new(Some(clock)),
            hints,
            started: jiff::Timestamp::now(),
            upkeep,
            log_dropped: OnceLock::new(),
        };
        host.rescan();
        Ok(host)
    }

    /// Answers whether a host could start with this configuration: the plugin directory, which
    /// it returns, and the policies. The state directory is not opened.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn check(config: &Config) -> Result<PathBuf, StartError> {
        config.check()?;
        let dir = config.plugin_dir.clone().ok_or(StartError::NoPluginDir)?;
        scan::open_dir(&dir).map_err(StartError::PluginDir)?;
        policies::syscalls(&config.policy_files())?;
        policies::symbols(&config.policy_files())?;
        Ok(dir)
    }

    /// The program that plugins run in if they get processes of their own, as far as that can be
    /// told before a host has tried it.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn worker_program(config: &Config) -> Result<PathBuf, NoWorkers> {
        Workers::find_program(config.worker.as_deref()).map(|(path, _)| path)
    }

    /// A handle to a plugin, good for every version of it. `None` if there is none (yet).
    pub fn plugin(&self, name: &str) -> Option<Arc<Plugin>> {
        self.supervisor.plugin(name)
    }

    /// Looks at the plugin directory now; does not wait for what follows.
    pub fn rescan(&self) {
        self.rescan_retrying(&[]);
    }

    /// The directory may have been replaced: it is watched before it is scanned, so
    /// that no change falls between.
    fn rescan_retrying(&self, retry: &[PluginName]) -> Vec<PluginName> {
        if let Some(upkeep) = self.upkeep.get() {
            upkeep();
        }
        self.hints.keep();
        self.supervisor.keep_unwritten();
        self.supervisor.rescan(retry)
    }

    /// The position behind the newest outcome: pass it to [`Host::reload`] to be told of
    /// everything that happened since.
    pub fn position(&self) -> u64 {
        self.supervisor.state().history.position()
    }

    /// Waits until the plugin directory has settled and nothing is under way.
    pub fn settle(&self) {
        drop(self.supervisor.wait_settled());
    }

    /// Looks at the plugin directory, waits until everything that follows from it is done,
    /// and tells what came of it.
    pub fn reload(&self, params: &ReloadParams) -> ReloadReport {
        let began = Instant::now();
        let since = params.since.unwrap_or_else(|| self.position());
        let asked = params.plugins.as_deref().unwrap_or_default();
        let revived = self.rescan_retrying(if params.retry { asked } else { &[] });
        let state = self.supervisor.wait_settled();
        let mut plugins = outcomes(&state, since);
        let wanted: Vec<PluginName> = match &params.plugins {
            Some(asked) => asked.clone(),
            // Who asks for all of them wants to know what is wrong, whenever it went wrong.
            None => state.refused().cloned().collect(),
        };
        for name in wanted {
            if let Entry::Vacant(entry) = plugins.entry(name)
                && let Some(report) = unchanged_report(&state, entry.key())
            {
                entry.insert(report);
            }
        }
        for plugin in &revived {
            if let Some(report) = plugins.get_mut(plugin) {
                report.reason.get_or_insert_with(|| REVIVED.to_owned());
            }
        }
        ReloadReport {
            plugins: plugins.into_values().collect(),
            problems: state.problems.clone(),
            installed: state.machine.slots().len() as u64,
            plugin_dir: self.supervisor.plugin_dir.clone(),
            took_ms: began.elapsed().as_secs_f64() * 1e3,
        }
    }

    /// Goes back to a version that is kept: the one whose hash begins with these hexadecimal
    /// digits, or the one before what runs. The version in the directory is not loaded again
    /// until that changes. Without `takes_state` it starts as new, whatever state the one that
    /// runs has. Waits for the end, and tells what came of it.
    ///
    /// # Errors
    /// If there is no such version, or a pin stands against it.
    pub fn roll_back(
        &self,
        plugin: &PluginName,
        to: Option<&str>,
        takes_state: bool,
    ) -> Result<PluginReport, WishError> {
        self.apply_choice(plugin, || {
            self.supervisor.roll_back(plugin, to, takes_state)
        })
    }

    /// Keeps what runs of a plugin, whatever the directory says, until [`Host::unpin`].
    ///
    /// # Errors
    /// If nothing of it runs, or it is pinned already.
    pub fn pin(&self, plugin: &PluginName) -> Result<PluginReport, WishError> {
        self.apply_choice(plugin, || self.supervisor.pin(plugin))
    }

    /// Lets the directory decide again, and tells what came of it.
    ///
    /// # Errors
    /// If it is not pinned.
    pub fn unpin(&self, plugin: &PluginName) -> Result<PluginReport, WishError> {
        self.apply_choice(plugin, || self.supervisor.unpin(plugin))
    }

    /// Applies an operator's choice and waits until it is done and persisted.
    fn apply_choice(
        &self,
        plugin: &PluginName,
        change: impl FnOnce() -> Result<(), WishError>,
    ) -> Result<PluginReport, WishError> {
        let since = self.position();
        change()?;
        let state = self.supervisor.wait_settled();
        let mut report = outcomes(&state, since)
            .remove(plugin)
            .or_else(|| unchanged_report(&state, plugin))
            .ok_or_else(|| ChoiceError::NotLive(plugin.clone()))?;
        report.not_durable = self.supervisor.not_durable(plugin);
        Ok(report)
    }

    /// The transitions of one plugin, or of all, oldest first; as many as are remembered.
    ///
    /// # Errors
    /// If nothing is known of the plugin.
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

    /// What is known of one plugin, for whoever looks for a fault.
    ///
    /// # Errors
    /// If nothing is known of it.
    pub fn debug(&self, plugin: &PluginName) -> Result<DebugReport, UnknownPlugin> {
        self.supervisor.debug(plugin).ok_or_else(|| UnknownPlugin {
            plugin: plugin.clone(),
            plugin_dir: self.supervisor.plugin_dir.clone(),
        })
    }

    /// Forgets what was kept of plugins that the directory does not have any more, except for
    /// pins. To be called once the host has settled.
    pub fn forget_gone(&self) {
        self.supervisor.forget_gone();
    }

    /// Has something of the program around the host done at every look, whoever asks for it. It must
    /// be quick. The first one counts.
    pub fn at_every_look(&self, upkeep: impl Fn() + Send + Sync + 'static) {
        // A second one would be the same program's.
        let _ = self.upkeep.set(Box::new(upkeep));
    }

    /// Has the status show how many log records of the program around the host found no room.
    /// The first one counts.
    pub fn show_log_dropped(&self, count: fn() -> u64) {
        // A second one would be the same program's.
        let _ = self.log_dropped.set(count);
    }

    /// The host and its plugins at this moment.
    pub fn status(&self) -> Status {
        let Snapshot {
            counters,
            position,
            plugins,
            problems,
        } = self.supervisor.snapshot();
        Status {
            host: HostStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                abi: format!("{ABI_MAJOR}.{ABI_MINOR}"),
                target: TARGET.to_owned(),
                plugin_dir: self.supervisor.plugin_dir.clone(),
                state_dir: self
                    .supervisor
                    .store
                    .as_ref()
                    .map(|store| store.dir().to_owned()),
                store_failure: self.supervisor.store.as_ref().and_then(Store::failure),
                started: format!("{:.0}", self.started),
                watch: self.hints.describe(),
                rescans: counters.rescans,
                position,
                retained: counters.retained,
                stuck: counters.stuck,
                overdue: counters.overdue,
                log_dropped: self.log_dropped.get().map_or(0, |count| count()),
                crash_signals: self.supervisor.workers.crash_signals(),
                degraded: self.supervisor.workers.missing().to_vec(),
                limits: self.supervisor.workers.limits(),
            },
            plugins,
            problems,
        }
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
        self.hints.stop();
        self.supervisor.clock.stop();
        let left = self.supervisor.stop();
        if clock.join().is_err() {
            tracing::error!(target: "hotmerge::host", "the clock's thread panicked");
        }
        self.supervisor.workers.close();
        left
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What came of each plugin since a position.
fn outcomes(state: &State, since: u64) -> BTreeMap<PluginName, PluginReport> {
    let mut plugins = BTreeMap::new();
    for report in state.history.since(since) {
        merge(&mut plugins, report);
    }
    plugins
}

/// Several outcomes of one plugin become one: from where it was to where it is.
fn merge(plugins: &mut BTreeMap<PluginName, PluginReport>, report: &PluginReport) {
    let mut report = report.clone();
    if let Some(before) = plugins.get(&report.plugin) {
        let gone_live = |action| matches!(action, Action::Loaded | Action::Reloaded);
        if report.action == Action::Unchanged && gone_live(before.action) {
            return;
        }
        if report.action == Action::Reloaded {
            report.old_hash = before.old_hash;
            if before.action == Action::Loaded {
                report.action = Action::Loaded;
            }
        }
    }
    plugins.insert(report.plugin.clone(), report);
}

/// A plugin to which nothing happened.
fn unchanged_report(state: &State, name: &PluginName) -> Option<PluginReport> {
    let slot = state.machine.slot(name.as_str())?;
    let live = slot.live();
    let refused = slot.refused();
    let running = live.map(|live| &live.meta);
    let shown = refused.map(|refused| &refused.meta).or(running);
    Some(PluginReport {
        plugin: name.clone(),
        action: match refused {
            Some(_) => Action::Refused,
            None => Action::Unchanged,
        },
        old_hash: running.map(|meta| meta.hash),
        hash: shown.map(|meta| meta.hash),
        version: shown.map(|meta| meta.version.clone()),
        generation: live.map(|live| live.generation),
        reason: refused.map(|refused| refused.reason.clone()),
        pause_ms: None,
        not_durable: None,
        took_ms: 0.0,
    })
}
