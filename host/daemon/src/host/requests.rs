//! What operators ask of a host, and the reports on what came of it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Instant,
};

use hotmerge_lifecycle::{ChoiceError, Why};
use hotmerge_meta::{
    PluginName,
    control::{Action, PluginReport, ReloadParams, ReloadReport},
};

use super::{Host, for_everybody};
use crate::supervise::{overrides::OverrideError, state::HostState};

/// The reason in the report of an unchanged plugin that a request restarts after it was given
/// up.
const REVIVED: &str = "the host had stopped restarting it after too many crashes; it starts again";

impl Host {
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
