//! Replaces the configuration of a running host.
//!
//! Invariant: the new one is checked as a whole before any of it is in force, and then takes effect at
//! once: attempts that begin from then on use it, and plugins that run with other settings start again by
//! the ordinary switch.
//!
//! Absent on purpose: the source of the configuration.

use std::{collections::BTreeSet, sync::Arc};

use hotmerge_lifecycle::Reconfigured;
use hotmerge_meta::{PluginName, control::KeyChange};
use jiff::Timestamp;

use crate::{
    Config, ConfigError,
    record::events::{Happened, HostEvent},
    supervise::{
        state::{Configured, HostState},
        supervisor::Supervisor,
    },
};

/// The effects of a new configuration.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Keys that wait for a restart of the host.
    pub(crate) needs_restart: Vec<KeyChange>,
    /// Plugins that start again.
    pub(crate) restarted: Vec<PluginName>,
}

impl Supervisor {
    /// Puts another configuration in force as far as a running host can, and starts the affected plugins
    /// again.
    pub(crate) fn reconfigure(self: &Arc<Self>, new: Config) -> Result<Change, ConfigError> {
        new.check_with_plugins()?;
        // One at a time: each is compared with the previous one.
        let mut pending = self.pending_config();
        let running = self.config();
        let needs_restart = running.needs_restart(&new);
        let new = Arc::new(new.within(&running));
        self.set_config(Arc::clone(&new));
        self.workers.set_settings(new.settings());
        let mut restarted: Vec<PluginName> = Vec::new();
        self.drive(|state| {
            state.configured = Configured {
                since: Timestamp::now(),
                needs_restart: needs_restart.clone(),
                refused: None,
            };
            let concerned = concerned(state, &running, &new);
            let starts_anew = concerned
                .iter()
                .filter(|(_, what)| what.changed && what.live);
            restarted.extend(starts_anew.map(|(name, _)| name.clone()));
            state.record(Happened::Host(HostEvent::Configured {
                needs_restart: needs_restart.clone(),
                waited_before: *pending,
                restarted: restarted.clone(),
            }));
            state.limits_not_enforced(&self.workers);
            state.machine.reconfigured(&concerned)
        });
        *pending = needs_restart.len();
        Ok(Change {
            needs_restart,
            restarted,
        })
    }

    /// Notes that a configuration is invalid.
    pub(crate) fn refuse_config(&self, reason: &str) {
        let mut state = self.state();
        state.configured.refused = Some((Timestamp::now(), reason.to_owned()));
        let reason = reason.to_owned();
        state.record(Happened::Host(HostEvent::ConfigurationRefused { reason }));
    }
}

/// The effect of the configuration on each plugin.
fn concerned(state: &HostState, running: &Config, new: &Config) -> Vec<(PluginName, Reconfigured)> {
    let differs =
        |config: &Config, name: &PluginName| config.started_with(name) != new.started_with(name);
    let names: BTreeSet<_> = state.machine.slots().keys().collect();
    let what = |name: &PluginName| {
        let live = state.live_config(name.as_str());
        let candidate = state.candidate(name).map(|(.., attempt)| &attempt.config);
        Reconfigured {
            live: live.is_some_and(|config| differs(&config, name)),
            candidate: candidate.is_some_and(|config| differs(config, name)),
            changed: differs(running, name),
        }
    };
    names
        .into_iter()
        .map(|name| (name.clone(), what(name)))
        .collect()
}
