//! How a host starts, and what is checked before.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, Weak},
    thread,
};

use hotmerge_instance::{
    NoWorkers, Workers,
    rules::{
        grants::{self, UntrustedGrant},
        policies,
        text_file::TextFileError,
    },
};
use hotmerge_lifecycle::Why;
use hotmerge_meta::{PluginName, Untrusted};

use super::{Host, Upkeep, absolute};
use crate::{
    Config,
    config::ConfigError,
    find::{errors::DirError, keys::Keys, scan},
    record::{
        events::{Happened, HostEvent},
        store::{Store, StoreError},
    },
    supervise::{clock::Tick, supervisor::Supervisor},
};

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

/// A granted path of a plugin that another user can redirect.
#[derive(Debug, thiserror::Error)]
#[error("plugin `{plugin}`: {source}")]
pub struct RefusedGrant {
    /// The plugin.
    pub plugin: PluginName,
    /// The path, and who could.
    pub source: UntrustedGrant,
}

impl Host {
    /// Starts a host and loads the settled packages of the plugin directory.
    ///
    /// # Errors
    /// See [`StartError`]. Bad plugins are no error: the host refuses them, and [`Host::status`]
    /// has the reasons.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let plugin_dir = Self::check(&config)?;
        let keys = Self::check_keys(&config);
        // Who reads of it may be in another directory.
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
        config.check_with_plugins().map_err(ConfigError::from)?;
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
    /// Each plugin with such a path.
    pub fn check_grants(config: &Config) -> Result<(), Vec<RefusedGrant>> {
        let trust = config.trust();
        let plugins = config.plugin.iter();
        let refused: Vec<_> = plugins
            .filter_map(|(name, own)| {
                let source = grants::check(&own.allow, own.user, &trust).err()?;
                let plugin = name.clone();
                Some(RefusedGrant { plugin, source })
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
}
