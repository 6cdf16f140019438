//! What an operator decides about versions, and how it is kept beyond the host's life.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc, time::Instant};

use hotmerge_lifecycle::{ChoiceError, Slot, Step};
use hotmerge_meta::{PluginMeta, PluginName};

use crate::{
    plugin::Version,
    record::{
        events::PluginEvent,
        store::{Now, Running, Store},
    },
    supervise::{jobs::Job, state::State, supervisor::Supervisor},
};

/// Why an operator's wish was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WishError {
    /// Something stands against it.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// The host has no store.
    #[error("this host keeps no versions; give it a `state_dir`")]
    NoStore,
    /// Nothing older is kept.
    #[error("no version of plugin `{0}` before the one that runs is kept")]
    NoneBefore(PluginName),
    /// Nothing of this hash is kept.
    #[error("no version of plugin `{0}` is kept whose hash begins with `{1}`; kept: {2}")]
    NotKept(PluginName, String, String),
}

impl Supervisor {
    /// Writes down what runs of a plugin and what was chosen, or forgets it with the plugin.
    pub(crate) fn keep(&self, name: &PluginName) {
        let Some(store) = &self.store else {
            return;
        };
        let before = store.unwritten(name.as_str());
        let kept = store.keep(name, || self.now(name), |live| self.image(live));
        let event = match (before, kept.map_err(|error| error.to_string())) {
            // It is tried often, and told of once.
            (Some(before), Err(reason)) if before == reason => None,
            (_, Err(reason)) => Some(PluginEvent::NotPersisted { reason }),
            (Some(_), Ok(())) => Some(PluginEvent::PersistedAgain),
            (None, Ok(())) => None,
        };
        if let Some(event) = event {
            self.state().happened(name, event);
        }
        if let Some(retry) = store.retry_at() {
            self.clock.wake_at(retry);
        }
    }

    /// Tries again to write down what could not be written. Returns when to try the next time.
    pub(crate) fn keep_again(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let retry = self.store.as_ref()?.retry_at()?;
        if retry > now {
            return Some(retry);
        }
        self.keep_unwritten();
        None
    }

    /// Writes down now what could not be written before.
    pub(crate) fn keep_unwritten(self: &Arc<Self>) {
        for name in self.store.iter().flat_map(Store::take_unwritten) {
            self.state().persisting += 1;
            self.submit(&name, Job::Keep(name.clone()));
        }
    }

    /// Why what an operator has chosen would be forgotten at the host's end.
    pub(crate) fn not_durable(&self, name: &PluginName) -> Option<String> {
        match &self.store {
            Some(store) => store.unwritten(name.as_str()),
            None => Some(WishError::NoStore.to_string()),
        }
    }

    fn now(&self, name: &PluginName) -> Now {
        let state = self.state();
        let machine = &state.machine;
        let live = machine.slot(name.as_str()).and_then(Slot::live);
        let choice = machine.choice(name);
        let found = machine.found_in_directory(name.as_str());
        let is_gone = found.is_none() && !state.stopping;
        match live {
            Some(live) => Now::Runs(Running {
                live: Arc::clone(&live.meta),
                package: found.and_then(|it| it.origin.package()).cloned(),
                choice: choice.cloned(),
                signed: state.live_signed(name.as_str()).map(|it| it.text.clone()),
                newest: state.newest.get(name).cloned(),
            }),
            // A pin outlasts the plugin: it may only be away.
            None if is_gone && choice.is_none() => Now::Gone,
            None => Now::AsItWas,
        }
    }

    /// A copy of what a live version was loaded from, also while its state changes hands.
    pub(crate) fn image(&self, live: &PluginMeta) -> io::Result<Vec<u8>> {
        let gone = || io::Error::other("it runs no more");
        let plugin = self.plugin(live.name.as_str()).ok_or_else(gone)?;
        let is_it = |version: &&Version| version.hash == live.hash;
        let image =
            plugin.peek(|version| Some(version).filter(is_it).map(|it| it.instance.image()));
        read_all(&image.ok_or_else(gone)??)
    }

    /// Forgets what was kept of plugins that the directory does not have, unless pinned.
    pub(crate) fn forget_gone(&self) {
        for remembered in self.store.iter().flat_map(|store| store.remembered()) {
            self.keep(&remembered.plugin);
        }
    }

    pub(crate) fn roll_back(
        self: &Arc<Self>,
        name: &PluginName,
        to: Option<&str>,
        takes_state: bool,
    ) -> Result<(), WishError> {
        let store = self.store.as_ref().ok_or(WishError::NoStore)?;
        let kept = store.versions(name.as_str());
        let live = self.state().live_meta(name.as_str()).map(|meta| meta.hash);
        let meta = match to {
            None => {
                let at = kept.iter().position(|meta| Some(meta.hash) == live);
                let before = kept.into_iter().skip(at.map_or(0, |at| at + 1));
                let mut before = before.filter(|meta| Some(meta.hash) != live);
                before
                    .next()
                    .ok_or_else(|| WishError::NoneBefore(name.clone()))?
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
                    .ok_or_else(|| WishError::NotKept(name.clone(), to.to_owned(), list()))?
            }
        };
        let asked = PluginEvent::RollbackAsked {
            version: meta.version.to_string(),
            hash: meta.hash,
        };
        self.wish(name, |state| {
            let steps = state.machine.roll_back(name, Arc::new(meta), takes_state)?;
            Ok((asked, steps))
        })
    }

    /// Keeps what runs.
    pub(crate) fn pin(self: &Arc<Self>, name: &PluginName) -> Result<(), WishError> {
        self.wish(name, |state| {
            let steps = state.machine.pin(name)?;
            let version = state.live_meta(name.as_str());
            let version = version.map(|meta| meta.version.to_string());
            let version = version.unwrap_or_default();
            Ok((PluginEvent::Pinned { version }, steps))
        })
    }

    /// Lets the directory decide again.
    pub(crate) fn unpin(self: &Arc<Self>, name: &PluginName) -> Result<(), WishError> {
        self.wish(name, |state| {
            Ok((PluginEvent::Unpinned, state.machine.unpin(name)?))
        })
    }

    /// Tells of a wish before what follows from it.
    fn wish(
        self: &Arc<Self>,
        name: &PluginName,
        wish: impl FnOnce(&mut State) -> Result<(PluginEvent, Vec<Step>), ChoiceError>,
    ) -> Result<(), WishError> {
        let mut refused = None;
        self.drive(|state| match wish(state) {
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

/// All bytes of a file, wherever others who have it open as well have read to.
fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn where_others_have_read_to_makes_no_difference() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"an image").unwrap();
        assert_eq!(read_all(&file).unwrap(), b"an image");
    }
}
