//! The host as a library.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Instant,
};

use hotmerge_abi::{ABI_MAJOR, ABI_MINOR};
use hotmerge_meta::{
    PluginName,
    control::{Action, PluginReport, ReloadParams, ReloadReport},
};

use crate::{
    Config, Plugin,
    clock::Tick,
    log, scan,
    status::{HostStatus, Status, TARGET},
    supervisor::{State, Supervisor},
    watch::Watch,
};

/// A running host. Stops gracefully when dropped.
pub struct Host {
    supervisor: Arc<Supervisor>,
    clock: Mutex<Option<JoinHandle<()>>>,
    watch: Arc<Watch>,
    started: jiff::Timestamp,
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
    /// The system has no thread for the host.
    #[error("failed to start the host's own thread: {0}")]
    Thread(std::io::Error),
}

impl Host {
    /// Starts a host and loads what the plugin directory has, up to what has not settled.
    ///
    /// # Errors
    /// If the plugin directory cannot be read. Bad plugins are no error: they are refused,
    /// and [`Host::status`] says why.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let plugin_dir = Self::check(&config)?;
        let watching = config.watch;
        let periodic = config.rescan();
        let supervisor = Arc::new(Supervisor::new(config, plugin_dir));
        let watch = Arc::new(Watch::new(Arc::clone(&supervisor), watching));
        let clock = {
            let (supervisor, watch) = (Arc::clone(&supervisor), Arc::clone(&watch));
            thread::Builder::new()
                .name("clock".into())
                .spawn(move || {
                    let mut next = periodic.map(|period| Instant::now() + period);
                    if let Some(next) = next {
                        supervisor.clock.wake_at(next);
                    }
                    loop {
                        let tick = supervisor.clock.next();
                        if tick == Tick::Stop {
                            return;
                        }
                        supervisor.expire();
                        watch.keep();
                        supervisor.rescan(&[]);
                        if let (Some(due), Some(period)) = (next, periodic) {
                            let now = Instant::now();
                            let due = if now >= due { now + period } else { due };
                            next = Some(due);
                            supervisor.clock.wake_at(due);
                        }
                    }
                })
                .map_err(StartError::Thread)?
        };
        let host = Self {
            supervisor,
            clock: Mutex::new(Some(clock)),
            watch,
            started: jiff::Timestamp::now(),
        };
        host.rescan();
        Ok(host)
    }

    /// Answers whether a host could start with this configuration.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn check(config: &Config) -> Result<PathBuf, StartError> {
        let dir = config.plugin_dir.clone().ok_or(StartError::NoPluginDir)?;
        scan::open_dir(&dir).map_err(StartError::PluginDir)?;
        Ok(dir)
    }

    /// A handle to a plugin, good for every version of it. `None` if there is none (yet).
    pub fn plugin(&self, name: &str) -> Option<Arc<Plugin>> {
        self.supervisor.plugin(name)
    }

    /// Looks at the plugin directory now; does not wait for what follows.
    pub fn rescan(&self) {
        self.look(&[]);
    }

    /// The directory may be another one than before: it is watched before it is looked at, so
    /// that no change falls between.
    fn look(&self, retry: &[PluginName]) {
        self.watch.keep();
        self.supervisor.rescan(retry);
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
        self.look(if params.retry { asked } else { &[] });
        let state = self.supervisor.wait_settled();
        let mut plugins: BTreeMap<PluginName, PluginReport> = BTreeMap::new();
        for report in state.history.since(since) {
            merge(&mut plugins, report);
        }
        for name in asked {
            if !plugins.contains_key(name)
                && let Some(report) = as_it_is(&state, name)
            {
                plugins.insert(name.clone(), report);
            }
        }
        ReloadReport {
            plugins: plugins.into_values().collect(),
            problems: state.problems.clone(),
            installed: state.slots.len() as u64,
            plugin_dir: self.supervisor.plugin_dir.clone(),
            took_ms: began.elapsed().as_secs_f64() * 1e3,
        }
    }

    /// The host and its plugins at this moment.
    pub fn status(&self) -> Status {
        let (plugins, problems) = self.supervisor.plugin_status();
        let counters = &self.supervisor.counters;
        Status {
            host: HostStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                abi: format!("{ABI_MAJOR}.{ABI_MINOR}"),
                target: TARGET.to_owned(),
                plugin_dir: self.supervisor.plugin_dir.clone(),
                started: format!("{:.0}", self.started),
                watch: self.watch.describe(),
                rescans: counters.rescans.load(Ordering::Relaxed),
                position: self.position(),
                retained: counters.retained.load(Ordering::Relaxed),
                stuck: counters.stuck.load(Ordering::Relaxed),
                overdue: counters.overdue.load(Ordering::Relaxed),
                log_dropped: log::dropped(),
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
        self.watch.stop();
        self.supervisor.clock.stop();
        let left = self.supervisor.stop();
        if clock.join().is_err() {
            tracing::error!("the clock's thread panicked");
        }
        left
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
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
fn as_it_is(state: &State, name: &PluginName) -> Option<PluginReport> {
    let slot = state.slots.get(name)?;
    let live = slot.live();
    let refused = slot.refused();
    Some(PluginReport {
        plugin: name.clone(),
        action: match refused {
            Some(_) => Action::Refused,
            None => Action::Unchanged,
        },
        old_hash: live.map(|live| live.hash),
        hash: refused
            .map(|refused| refused.hash)
            .or(live.map(|live| live.hash)),
        version: state
            .live_meta(name.as_str())
            .map(|meta| meta.version.clone()),
        generation: live.map(|live| live.generation),
        reason: refused.map(|refused| refused.reason.clone()),
        took_ms: 0.0,
    })
}
