//! The host as a library.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    thread::{self, JoinHandle},
    time::Instant,
};

use hotmerge_abi::{ABI_MAJOR, ABI_MINOR};
use hotmerge_instance::{
    NoWorkers, Workers,
    rules::{grants, policies, text_file::TextFileError},
};
use hotmerge_lifecycle::{ChoiceError, Why};
use hotmerge_meta::{
    PackageName, PluginName, Untrusted,
    control::{
        Action, Change, DebugReport, HostStatus, LogSinkStatus, PluginReport, ReloadParams,
        ReloadReport, Status, Transition,
    },
};

mod configuration;
mod figures;

use crate::{
    Config, TARGET,
    config::{ConfigError, source::Source},
    find::{
        errors::DirError,
        keys::Keys,
        scan::{self, Dirty},
    },
    plugin::Plugin,
    record::{
        events::{Happened, HostEvent},
        status::Snapshot,
        store::{Store, StoreError},
        subscribers::Subscription,
    },
    supervise::{
        clock::Tick,
        overrides::OverrideError,
        state::{HostState, OnChange},
        supervisor::Supervisor,
    },
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

/// Why a host cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No plugin directory was named.
    #[error(
        "no plugin directory; pass `--plugin-dir DIR` or set `plugin_dir` in the configuration"
    )]
    NoPluginDir,
    /// The plugin directory cannot be used.
    #[error("{0}; create it, or pass another `--plugin-dir`")]
    PluginDir(DirError),
    /// The embedding program has not said where plugins run.
    #[error(
        "`Config::isolation` is not set, so the host does not know where plugins may run: set it to \
         `Isolation::Process` (which needs the program `hotmerge-worker`), to `Isolation::Host` for \
         plugins that are trusted like this program, or to `Isolation::Auto`"
    )]
    NoIsolation,
    /// Another user could have written to the plugin directory.
    #[error("plugin directory: {0}")]
    Untrusted(Untrusted),
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A policy of the operator is invalid.
    #[error(transparent)]
    Policy(#[from] TextFileError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StoreError),
    /// The system cannot provide a thread for the host.
    #[error("failed to start the host's own thread: {0}")]
    Thread(std::io::Error),
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

/// The reason in the report of an unchanged plugin that a request restarts after it was given
/// up.
const REVIVED: &str = "the host had stopped restarting it after too many crashes; it starts again";

impl Host {
    /// Starts a host and loads the settled packages of the plugin directory.
    ///
    /// # Errors
    /// See [`StartError`]. Bad plugins are not an error: the host refuses them, and [`Host::status`]
    /// has the reasons.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let plugin_dir = Self::check(&config)?;
        let keys = Self::check_keys(&config);
        // A reader of it may be in another directory.
        let state_dir = config.state_dir.as_deref().map(absolute);
        let store = state_dir
            .map(|dir| Store::open(&dir, config.keep_versions))
            .transpose()?;
        let supervisor = Arc::new_cyclic(|host: &Weak<Supervisor>| {
            let (hinted, told) = (Weak::clone(host), Weak::clone(host));
            let hint = move || {
                if let Some(host) = hinted.upgrade() {
                    host.clock.hint();
                }
            };
            let tell = move |event| {
                if let Some(host) = told.upgrade() {
                    let event = HostEvent::Watch(event);
                    host.state().record(Happened::Host(event));
                }
            };
            Supervisor::new(config, plugin_dir, store, Arc::new(hint), Arc::new(tell))
        });
        for reason in keys {
            let event = HostEvent::KeysUnusable { reason };
            supervisor.state().record(Happened::Host(event));
        }
        let upkeep = Arc::new(OnceLock::<Upkeep>::new());
        let clock = {
            let host = Arc::clone(&supervisor);
            let upkeep = Arc::clone(&upkeep);
            let ask_for_full = |host: &Supervisor| {
                if let Some(period) = host.config().rescan() {
                    host.clock.full_within(period);
                }
            };
            ask_for_full(&host);
            let run = move || {
                host.clock.run(|tick| {
                    host.expire();
                    if let Some(upkeep) = upkeep.get() {
                        upkeep();
                    }
                    match tick {
                        Tick::Full => {
                            ask_for_full(&host);
                            host.rescan(&[], Why::Changed);
                        }
                        Tick::Hinted | Tick::Due => host.look_at_dirty(),
                    }
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
            started: jiff::Timestamp::now(),
            upkeep,
            source: OnceLock::new(),
            log_sinks: OnceLock::new(),
            at_configuration: OnceLock::new(),
            reconfiguring: Mutex::default(),
        };
        host.rescan();
        Ok(host)
    }

    /// Checks whether a host could start with this configuration: checks the plugin directory,
    /// which it returns, and the policies, but does not open the state directory.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn check(config: &Config) -> Result<PathBuf, StartError> {
        config.check_with_plugins()?;
        if config.isolation.is_none() {
            return Err(StartError::NoIsolation);
        }
        let dir = config.plugin_dir.clone().ok_or(StartError::NoPluginDir)?;
        match scan::open_dir(&dir, &config.trust()) {
            Ok(_) => {}
            Err(DirError::Untrusted(error)) => return Err(StartError::Untrusted(error)),
            Err(error) => return Err(StartError::PluginDir(error)),
        }
        policies::syscalls(&config.policy_files())?;
        policies::symbols(&config.policy_files())?;
        Ok(dir)
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.supervisor.config()
    }

    /// The worker program for sandboxed plugins, as far as it can be determined without starting
    /// a worker.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn worker_program(config: &Config) -> Result<PathBuf, NoWorkers> {
        Workers::find_program(config.worker.as_deref(), &config.trust()).map(|(path, _)| path)
    }

    /// Checks that no other user can redirect a granted path.
    ///
    /// # Errors
    /// One sentence per plugin with such a path.
    pub fn check_grants(config: &Config) -> Result<(), Vec<String>> {
        let trust = config.trust();
        let plugins = config.plugin.iter();
        let refused: Vec<_> = plugins
            .filter_map(|(name, own)| {
                let error = grants::check(&own.allow, own.user, &trust).err()?;
                Some(format!("plugin `{name}`: {error}"))
            })
            .collect();
        match refused.is_empty() {
            true => Ok(()),
            false => Err(refused),
        }
    }

    /// What keeps required signatures from being verified, in sentences; nothing if none is
    /// required.
    pub fn check_keys(config: &Config) -> Vec<String> {
        if !config.looks_at_signatures() {
            return Vec::new();
        }
        match Keys::read(config.keys_dir(), &config.trust()) {
            Ok(keys) => keys.problems(),
            Err(error) => vec![error.to_string()],
        }
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

    /// Rescans the plugin directory, waits until all resulting reloads are done, and reports
    /// them.
    pub fn reload(&self, params: &ReloadParams) -> ReloadReport {
        let began = Instant::now();
        let since = params.since.unwrap_or_else(|| self.position());
        let config = params.config.then(|| self.reread_config());
        let asked = params.plugins.as_deref().unwrap_or_default();
        let why = match params.without_state {
            true => Why::AskedWithoutState,
            false => Why::Asked,
        };
        let revived = self.rescan_retrying(&self.to_retry(params, since), why);
        let state = match params.only {
            true => self.supervisor.wait_settled_of(asked),
            false => self.supervisor.wait_settled(),
        };
        let mut plugins = outcomes(&state, since);
        if params.only {
            plugins.retain(|name, _| asked.contains(name));
        }
        let wanted: Vec<PluginName> = match &params.plugins {
            Some(asked) => asked.clone(),
            // A request for all plugins also reports earlier refusals.
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
            plugin_dir: for_everybody(&self.supervisor.plugin_dir),
            config,
            took_ms: began.elapsed().as_secs_f64() * 1e3,
        }
    }

    /// The plugins to try again, without those tried since the client's position: a version that hangs
    /// would hang twice.
    fn to_retry(&self, params: &ReloadParams, since: u64) -> Vec<PluginName> {
        let mut names = params.plugins.clone().unwrap_or_default();
        let tried = outcomes(&self.supervisor.state(), since);
        names.retain(|name| params.retry && !tried.contains_key(name));
        names
    }

    /// Rolls back to a stored version: the one whose hash begins with these hexadecimal digits, or
    /// the previous one. The directory's version stays out until the directory changes. Without
    /// `takes_state` the version starts fresh and the running version's state is lost. Waits for
    /// the result and reports it.
    ///
    /// # Errors
    /// If there is no such version, or a pin prevents it.
    pub fn roll_back(
        &self,
        plugin: &PluginName,
        to: Option<&str>,
        takes_state: bool,
    ) -> Result<PluginReport, OverrideError> {
        self.apply_choice(plugin, || {
            self.supervisor.roll_back(plugin, to, takes_state)
        })
    }

    /// Keeps a plugin's running version, regardless of the directory, until [`Host::unpin`].
    ///
    /// # Errors
    /// If no version runs, or it is already pinned.
    pub fn pin(&self, plugin: &PluginName) -> Result<PluginReport, OverrideError> {
        self.apply_choice(plugin, || self.supervisor.pin(plugin))
    }

    /// Follows the directory again, and reports the result.
    ///
    /// # Errors
    /// If it is not pinned.
    pub fn unpin(&self, plugin: &PluginName) -> Result<PluginReport, OverrideError> {
        self.apply_choice(plugin, || self.supervisor.unpin(plugin))
    }

    /// Applies an operator's choice and waits until it is done and persisted.
    fn apply_choice(
        &self,
        plugin: &PluginName,
        change: impl FnOnce() -> Result<(), OverrideError>,
    ) -> Result<PluginReport, OverrideError> {
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

    /// What happens to plugins from now on. A subscriber may lag behind by `waiting` events; the host
    /// never waits for it, and [`Subscription::lost`] counts what found no room.
    pub fn subscribe(&self, waiting: usize) -> Subscription {
        self.supervisor.state().subscribers.add(waiting)
    }

    /// The last changes of all plugins, at most so many of those that are remembered, oldest first.
    pub fn changes(&self, most: usize) -> Vec<Change> {
        self.supervisor.state().history.changes(most)
    }

    /// Has a function called whenever the status changes by more than counts and measurements. It must
    /// return at once and ask the host for nothing: the host is locked meanwhile.
    pub fn on_change(&self, tell: impl Fn() + Send + Sync + 'static) {
        self.supervisor
            .state()
            .on_change
            .push(OnChange(Box::new(tell)));
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

/// The outcome of each plugin since a position.
fn outcomes(state: &HostState, since: u64) -> BTreeMap<PluginName, PluginReport> {
    let mut plugins = BTreeMap::new();
    for report in state.history.since(since) {
        merge(&mut plugins, report);
    }
    plugins
}

/// Merges several outcomes of one plugin into one, from its first state to its last.
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

/// A path for another process, which may have another working directory.
fn for_everybody(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| absolute(path))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Why the operator's choice keeps the version in the directory from running.
fn in_the_way(state: &HostState, name: &PluginName) -> Option<String> {
    let found = state.machine.found_in_directory(name.as_str())?;
    let choice = state.machine.slot(name.as_str())?.choice()?;
    choice
        .stands_against(&found.meta.hash)
        .then(|| choice.reason(name, &found.meta.hash))
}

/// The report for an unchanged plugin.
fn unchanged_report(state: &HostState, name: &PluginName) -> Option<PluginReport> {
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
        reason: refused
            .map(|refused| refused.reason.clone())
            .or_else(|| in_the_way(state, name)),
        pause_ms: None,
        not_durable: None,
        took_ms: 0.0,
    })
}
