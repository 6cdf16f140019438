//! The operator's overrides of the plugin directory: pin, unpin, rollback.

use std::sync::Arc;

use hotmerge_lifecycle::{ChoiceError, Step};
use hotmerge_meta::{PluginMeta, PluginName};

use crate::{
    record::events::PluginEvent,
    supervise::{state::HostState, supervisor::Supervisor},
};

/// Why the host did not carry out a pin, an unpin or a rollback.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideError {
    /// The life cycle refuses it.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// The host has no store.
    #[error("this host keeps no versions; set `state_dir`")]
    NoStore,
    /// No older version is stored.
    #[error("no version of plugin `{0}` older than the running one is kept")]
    NoneBefore(PluginName),
    /// No version with this hash is stored.
    #[error("no version of plugin `{0}` is kept whose hash begins with `{1}`; kept: {2}")]
    NotKept(PluginName, String, String),
}

impl Supervisor {
    /// Why the operator's choice would be lost at the host's end.
    pub(crate) fn not_durable(&self, name: &PluginName) -> Option<String> {
        match &self.store {
            Some(store) => store.unwritten(name.as_str()),
            None => Some(OverrideError::NoStore.to_string()),
        }
    }

    pub(crate) fn roll_back(
        self: &Arc<Self>,
        name: &PluginName,
        to: Option<&str>,
        takes_state: bool,
    ) -> Result<(), OverrideError> {
        let store = self.store.as_ref().ok_or(OverrideError::NoStore)?;
        let kept = store.versions(name.as_str());
        let live = self.state().live_meta(name.as_str()).map(|meta| meta.hash);
        let meta = match to {
            None => {
                let at = kept.iter().position(|meta| Some(meta.hash) == live);
                let before = kept.into_iter().skip(at.map_or(0, |at| at + 1));
                let mut before = before.filter(|meta| Some(meta.hash) != live);
                before
                    .next()
                    .ok_or_else(|| OverrideError::NoneBefore(name.clone()))?
            }
            Some(to) => {
                let wanted = to.strip_prefix("sha256:").unwrap_or(to);
                let hex = |meta: &PluginMeta| meta.hash.to_string()["sha256:".len()..].to_owned();
                let list = || {
                    let all = kept.iter();
                    let all = all.map(|meta| format!("{} ({})", meta.hash.short(), meta.version));
                    all.collect::<Vec<_>>().join(", ")
                };
                let found = kept.iter().find(|meta| hex(meta).starts_with(wanted));
                found
                    .cloned()
                    .ok_or_else(|| OverrideError::NotKept(name.clone(), to.to_owned(), list()))?
            }
        };
        let asked = PluginEvent::RollbackAsked {
            version: meta.version.to_string(),
            hash: meta.hash,
        };
        self.override_with(name, |state| {
            let steps = state.machine.roll_back(name, Arc::new(meta), takes_state)?;
            Ok((asked, steps))
        })
    }

    /// Pins the running version.
    pub(crate) fn pin(self: &Arc<Self>, name: &PluginName) -> Result<(), OverrideError> {
        self.override_with(name, |state| {
            let steps = state.machine.pin(name)?;
            let version = state.live_meta(name.as_str());
            let version = version.map(|meta| meta.version.to_string());
            let version = version.unwrap_or_default();
            Ok((PluginEvent::Pinned { version }, steps))
        })
    }

    /// Removes the pin.
    pub(crate) fn unpin(self: &Arc<Self>, name: &PluginName) -> Result<(), OverrideError> {
        self.override_with(name, |state| {
            Ok((PluginEvent::Unpinned, state.machine.unpin(name)?))
        })
    }

    /// Records the operator's decision before its effects.
    fn override_with(
        self: &Arc<Self>,
        name: &PluginName,
        decide: impl FnOnce(&mut HostState) -> Result<(PluginEvent, Vec<Step>), ChoiceError>,
    ) -> Result<(), OverrideError> {
        let mut refused = None;
        self.drive(|state| match decide(state) {
            Ok((event, steps)) => {
                state.happened(name, event);
                steps
            }
            Err(error) => {
                refused = Some(error);
                Vec::new()
            }
        });
        refused.map_or(Ok(()), |error| Err(error.into()))
    }
}
