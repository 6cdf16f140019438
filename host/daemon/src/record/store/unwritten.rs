//! The records that the store could not write, since when, and when it tries again.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hotmerge_meta::{PluginName, control::StoreFailure};

use super::folder::StoreError;

/// How soon a failed write is tried again: an operator may have made room.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Unwritten(Mutex<Backlog>);

#[derive(Debug, Default)]
struct Backlog {
    /// The reason for each plugin.
    reasons: BTreeMap<PluginName, String>,
    since: Option<jiff::Timestamp>,
    retry: Option<Instant>,
}

impl Unwritten {
    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the outcome of writing a plugin's record.
    pub(super) fn note(&self, plugin: &PluginName, failed: Option<&StoreError>) {
        let mut state = self.lock();
        match failed {
            Some(error) => {
                state.reasons.insert(plugin.clone(), error.to_string());
                state.since.get_or_insert_with(jiff::Timestamp::now);
                // Only an operator can remove a newer host's record, so that retrying is pointless.
                if !matches!(error, StoreError::Newer { .. }) {
                    state.retry = Some(Instant::now() + RETRY);
                }
            }
            None => {
                state.reasons.remove(plugin);
                if state.reasons.is_empty() {
                    *state = Backlog::default();
                }
            }
        }
    }

    /// Why a plugin's record would be lost at the host's end.
    pub(super) fn reason(&self, plugin: &str) -> Option<String> {
        self.lock().reasons.get(plugin).cloned()
    }

    pub(super) fn describe(&self) -> Option<StoreFailure> {
        let state = self.lock();
        let reason = state.reasons.values().next()?.clone();
        Some(StoreFailure {
            since: state.since.map(|it| format!("{it:.0}")).unwrap_or_default(),
            plugins: state.reasons.keys().cloned().collect(),
            reason,
        })
    }

    /// When to try again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.lock().retry
    }

    /// Takes the plugins to try again.
    pub(super) fn take(&self) -> Vec<PluginName> {
        let mut state = self.lock();
        state.retry = None;
        state.reasons.keys().cloned().collect()
    }
}
