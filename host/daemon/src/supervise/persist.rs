//! Persists which versions run and what the operator chose.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc, time::Instant};

use hotmerge_lifecycle::Slot;
use hotmerge_meta::{PluginMeta, PluginName};

use crate::{
    plugin::Version,
    record::{
        events::PluginEvent,
        store::{Now, Running, Store},
    },
    supervise::{jobs::Job, supervisor::Supervisor},
};

impl Supervisor {
    /// Writes a plugin's record, or removes it with the plugin.
    pub(crate) fn persist(&self, name: &PluginName) {
        let Some(store) = &self.store else {
            return;
        };
        let before = store.unwritten(name.as_str());
        let kept = store.persist(name, || self.now(name), |live| self.image(live));
        let event = match (before, kept.map_err(|error| error.to_string())) {
            // Retried often, reported once.
            (Some(before), Err(reason)) if before == reason => None,
            (_, Err(reason)) => Some(PluginEvent::NotPersisted { reason }),
            (Some(_), Ok(())) => Some(PluginEvent::PersistedAgain),
            (None, Ok(())) => None,
        };
        let news = store.take_news();
        if event.is_some() || !news.is_empty() {
            let mut state = self.state();
            for noticed in news {
                state.record(noticed);
            }
            if let Some(event) = event {
                state.happened(name, event);
            }
        }
        if let Some(retry) = store.retry_at() {
            self.clock.wake_at(retry);
        }
    }

    /// Tries again to write records that could not be written. Returns when to try next.
    pub(crate) fn persist_again(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let retry = self.store.as_ref()?.retry_at()?;
        if retry > now {
            return Some(retry);
        }
        self.persist_unwritten();
        None
    }

    /// Writes the records now that could not be written before.
    pub(crate) fn persist_unwritten(self: &Arc<Self>) {
        for name in self.store.iter().flat_map(Store::take_unwritten) {
            self.state().persisting += 1;
            self.submit(Job::Persist(name));
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
            // A pin outlives the plugin, which may return.
            None if is_gone && choice.is_none() => Now::Gone,
            None => Now::AsItWas,
        }
    }

    /// A copy of a live version's image, also during a hand-over of its state.
    pub(crate) fn image(&self, live: &PluginMeta) -> io::Result<Vec<u8>> {
        let gone = || io::Error::other("it no longer runs");
        let plugin = self.plugin(live.name.as_str()).ok_or_else(gone)?;
        let is_it = |version: &&Version| version.hash == live.hash;
        let image =
            plugin.peek(|version| Some(version).filter(is_it).map(|it| it.instance.image()));
        read_all(&image.ok_or_else(gone)??)
    }

    /// Removes the records of plugins that are not in the directory, unless pinned.
    pub(crate) fn forget_gone(&self) {
        for remembered in self.store.iter().flat_map(|store| store.remembered()) {
            self.persist(&remembered.plugin);
        }
    }
}

/// All bytes of a file, independent of the position up to which others have read it.
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
    fn readers_positions_are_independent() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"an image").unwrap();
        assert_eq!(read_all(&file).unwrap(), b"an image");
    }
}
