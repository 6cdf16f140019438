//! The last good versions of each plugin, and what an operator chose, on disk.
//!
//! ```text
//! STATE_DIR/plugins/NAME.json   what ran last, which versions are kept, what was chosen
//! STATE_DIR/images/HASH.so      verified bytes
//! ```
//!
//! Invariants: every file is written under another name, synced and renamed, so that a host
//! killed at any moment leaves the old file or the new one; an image is there before the
//! first record that names it, and goes after the last one; of two looks at what runs the later
//! one is written down later. Nothing is believed: an image is verified again before it is
//! loaded, and whenever its version goes live; a record counts only if nobody but root and the
//! host's user could have written it. A record in a newer format is left alone, with its images:
//! the host that wrote it may come back. The lock on the records is taken before that on
//! the host's state, never while that is held.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use hotmerge_meta::{Digest, PackageName, PluginMeta, PluginName, control::StoreFailure};
use serde::{Deserialize, Serialize};

use hotmerge_lifecycle::Choice;

mod folder;
mod foreign;
mod names;
mod unwritten;

pub use folder::StoreError;
use folder::{Folder, failed};
use foreign::Foreign;
use names::{image_name, record_name};
use unwritten::Unwritten;

/// The format that this host writes and the newest it reads. Each other set of fields is another
/// format: what a host leaves out when it writes a record would be lost.
const FORMAT: u32 = 1;

/// What is known of a plugin beyond the plugin directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    /// What ran last.
    live: Digest,
    /// The package that the directory had it in then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    package: Option<PackageName>,
    /// Versions that went live, newest first.
    versions: Vec<PluginMeta>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    choice: Option<RecordedChoice>,
}

/// Why a record counts for nothing.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("a newer host wrote it, in format {0}, and this host reads format {FORMAT} only")]
    Newer(u32),
    #[error("no host ever wrote format {0}")]
    Older(u32),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedChoice {
    hash: Digest,
    pinned: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instead_of: Option<Digest>,
}

impl Record {
    fn version(&self, hash: &Digest) -> Option<&PluginMeta> {
        self.versions.iter().find(|meta| meta.hash == *hash)
    }

    /// Whether a version has to stay, however old it is.
    fn needs(&self, hash: &Digest) -> bool {
        self.live == *hash
            || self
                .choice
                .as_ref()
                .is_some_and(|choice| choice.hash == *hash)
    }
}

type Records = BTreeMap<PluginName, Record>;

/// An open store. Only one host has it open.
#[derive(Debug)]
pub(crate) struct Store {
    dir: Folder,
    plugins: Folder,
    images: Folder,
    records: Mutex<Records>,
    /// Records that only a newer host can read.
    foreign: Foreign,
    unwritten: Unwritten,
    limit: usize,
    _lock: File,
}

/// The last recorded facts about a plugin.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    pub(crate) plugin: PluginName,
    /// The version that ran.
    pub(crate) live: Option<Arc<PluginMeta>>,
    /// The package that the directory had it in.
    pub(crate) package: Option<PackageName>,
    pub(crate) choice: Option<Choice>,
}

/// What runs of a plugin.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) live: Arc<PluginMeta>,
    /// The package that the directory has it in, if it does.
    pub(crate) package: Option<PackageName>,
    pub(crate) choice: Option<Choice>,
}

/// What is to be written down of a plugin.
#[derive(Clone, Debug)]
pub(crate) enum Now {
    /// This runs, and this was chosen.
    Runs(Running),
    /// It is gone, and to be forgotten.
    Gone,
    /// Nothing: what was written down stands.
    AsItWas,
}

/// What a state directory has room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Whether it is there already.
    pub(crate) exists: bool,
    /// How much can be written.
    pub(crate) free_bytes: u64,
}

impl Store {
    /// Tries whether a directory could be opened as a store, and written. Makes nothing, and takes no
    /// lock: a host may be running on it.
    pub(crate) fn examine(dir: &Path) -> Result<Room, StoreError> {
        let exists = dir.symlink_metadata().is_ok();
        let free_bytes = match exists {
            true => Folder::open(dir)?.try_writing()?,
            false => folder::try_making(dir)?,
        };
        Ok(Room { exists, free_bytes })
    }

    /// Opens a store, makes it if it is not there, and clears away what a killed host left.
    pub(crate) fn open(dir: &Path, limit: usize) -> Result<Self, StoreError> {
        let dir = Folder::open(dir)?;
        let lock = dir.lock_file("lock")?;
        let mut store = Self {
            plugins: dir.sub("plugins")?,
            images: dir.sub("images")?,
            dir,
            records: Mutex::default(),
            foreign: Foreign::default(),
            unwritten: Unwritten::default(),
            limit,
            _lock: lock,
        };
        store.read_records()?;
        store.clear_images()?;
        Ok(store)
    }

    fn read_records(&mut self) -> Result<(), StoreError> {
        let mut records = Records::new();
        for name in self.plugins.names()? {
            let plugin = name
                .strip_suffix(".json")
                .and_then(|name| name.parse::<PluginName>().ok());
            let Some(plugin) = plugin else {
                // Ours alone: what has no plugin's name was never finished.
                let _ = self.plugins.remove(&name);
                continue;
            };
            // Whoever could have planted it must not decide what runs.
            let bytes = self.plugins.read(&name)?;
            match parse_record(&bytes) {
                Ok(mut record) => {
                    let is_there = |meta: &PluginMeta| self.images.has(&image_name(&meta.hash));
                    record.versions.retain(is_there);
                    records.insert(plugin, record);
                }
                Err(RecordError::Newer(format)) => {
                    self.foreign.note(plugin.clone(), &bytes, format);
                    let error = self.newer(&plugin, format);
                    tracing::error!(target: "hotmerge::plugin", %plugin, "its record in the store is not used: {error}");
                }
                Err(error @ (RecordError::Json(_) | RecordError::Older(_))) => {
                    tracing::error!(target: "hotmerge::plugin", %plugin, "its record in the store cannot be read: {error}");
                }
            }
        }
        self.records = Mutex::new(records);
        Ok(())
    }

    fn clear_images(&self) -> Result<(), StoreError> {
        let records = self.lock();
        let versions = records.values().flat_map(|record| &record.versions);
        let hashes = versions.map(|meta| &meta.hash);
        let named: BTreeSet<_> = hashes
            .chain(self.foreign.images())
            .map(image_name)
            .collect();
        for name in self.images.names()? {
            if !named.contains(&name) {
                self.images.remove(&name)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The facts that the last host recorded.
    pub(crate) fn remembered(&self) -> Vec<Remembered> {
        let records = self.lock();
        let remember = |(name, record): (&PluginName, &Record)| {
            let version = |hash| record.version(hash).cloned().map(Arc::new);
            let choice = record.choice.as_ref().and_then(|choice| {
                Some(Choice {
                    meta: version(&choice.hash)?,
                    pinned: choice.pinned,
                    instead_of: choice.instead_of,
                })
            });
            Remembered {
                plugin: name.clone(),
                live: version(&record.live),
                package: record.package.clone(),
                choice,
            }
        };
        records.iter().map(remember).collect()
    }

    /// The versions of a plugin that can be gone back to, newest first.
    pub(crate) fn versions(&self, plugin: &str) -> Vec<PluginMeta> {
        let records = self.lock();
        let record = records.get(plugin);
        record.map_or_else(Vec::new, |record| record.versions.clone())
    }

    /// The bytes of a version, to be verified.
    pub(crate) fn image(&self, hash: &Digest) -> Result<Vec<u8>, StoreError> {
        self.images.read(&image_name(hash))
    }

    /// Writes down what runs of a plugin and what was chosen, or forgets it with the plugin. `now`
    /// looks at that and is asked under the store's lock, so that what was so first is written
    /// first; `image` has the bytes of what runs.
    pub(crate) fn persist(
        &self,
        plugin: &PluginName,
        now: impl FnOnce() -> Now,
        image: impl FnOnce(&PluginMeta) -> io::Result<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let mut records = self.lock();
        let done = match now() {
            Now::Runs(running) => self
                .may_write(plugin)
                .and_then(|()| self.write_down(&mut records, &running, || image(&running.live))),
            Now::Gone => self.forget(&mut records, plugin),
            Now::AsItWas => Ok(()),
        };
        self.unwritten.note(plugin, done.as_ref().err());
        done
    }

    /// Whether this host's record would replace none of a newer host's that is still there.
    fn may_write(&self, plugin: &PluginName) -> Result<(), StoreError> {
        match self.foreign.format(plugin) {
            Some(format) if self.plugins.has(&record_name(plugin)) => {
                Err(self.newer(plugin, format))
            }
            _ => Ok(()),
        }
    }

    fn newer(&self, plugin: &PluginName, format: u32) -> StoreError {
        StoreError::Newer {
            path: self.plugins.path().join(record_name(plugin)),
            format,
            newest: FORMAT,
        }
    }

    /// Why what was to be written down of a plugin is not.
    pub(crate) fn unwritten(&self, plugin: &str) -> Option<String> {
        self.unwritten.reason(plugin)
    }

    /// What is wrong with the store at this moment.
    pub(crate) fn failure(&self) -> Option<StoreFailure> {
        self.unwritten.describe()
    }

    /// When to try again to write down what is not written.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.unwritten.retry_at()
    }

    /// What is to be written down again. Asking counts as trying.
    pub(crate) fn take_unwritten(&self) -> Vec<PluginName> {
        self.unwritten.take()
    }

    fn write_down(
        &self,
        records: &mut Records,
        running: &Running,
        image: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let live = &*running.live;
        let old = records.get(&live.name);
        let mut record = old.cloned().unwrap_or_else(|| Record {
            format: FORMAT,
            live: live.hash,
            package: None,
            versions: Vec::new(),
            choice: None,
        });
        record.live = live.hash;
        if running.package.is_some() {
            record.package.clone_from(&running.package);
        }
        record.choice = running.choice.as_ref().map(|choice| RecordedChoice {
            hash: choice.meta.hash,
            pinned: choice.pinned,
            instead_of: choice.instead_of,
        });
        let is_good = self.keep_image(&live.hash, image);
        let mut versions = record.versions.iter_mut();
        match versions.find(|meta| meta.hash == live.hash) {
            Some(known) => {
                known.clone_from(live);
            }
            None if is_good.is_err() => return is_good,
            None => {
                record.versions.insert(0, live.clone());
            }
        }
        let mut left = self.limit;
        let needed = record.clone();
        record.versions.retain(|meta| {
            let stays = left > 0 || needed.needs(&meta.hash);
            left = left.saturating_sub(1);
            stays
        });
        if records.get(&live.name) == Some(&record) {
            return is_good;
        }
        let name = record_name(&live.name);
        let text = serde_json::to_vec(&record)
            .map_err(failed("write", &self.plugins.path().join(&name)))?;
        if let Err(error) = self.plugins.write(&name, &text) {
            // An image that no record names fills the disk further.
            self.drop_images(records, Some(record));
            return Err(error);
        }
        let old = records.insert(live.name.clone(), record);
        self.drop_images(records, old);
        is_good
    }

    /// Sees that the image of a version is there and whole. While it runs there is a good copy;
    /// later there may be none.
    fn keep_image(
        &self,
        hash: &Digest,
        image: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let name = image_name(hash);
        if self.images.has(&name) {
            match self.images.read(&name) {
                Ok(bytes) if Digest::of(&bytes) == *hash => return Ok(()),
                _ => {
                    tracing::warn!(target: "hotmerge::host", "the stored image `{name}` was damaged; rewriting it");
                }
            }
        }
        let path = self.images.path().join(&name);
        let bytes = image().map_err(failed("read the image for", &path))?;
        self.images.write(&name, &bytes)
    }

    fn forget(&self, records: &mut Records, plugin: &PluginName) -> Result<(), StoreError> {
        if !records.contains_key(plugin) {
            return Ok(());
        }
        self.plugins.remove(&record_name(plugin))?;
        let old = records.remove(plugin);
        self.drop_images(records, old);
        Ok(())
    }

    /// Removes the images that only `old` named.
    fn drop_images(&self, records: &Records, old: Option<Record>) {
        for meta in old.iter().flat_map(|record| &record.versions) {
            let is_named = |record: &Record| record.version(&meta.hash).is_some();
            if !records.values().any(is_named) && !self.foreign.images().contains(&meta.hash) {
                // Left behind at worst, and cleared away at the next start.
                let _ = self.images.remove(&image_name(&meta.hash));
            }
        }
    }
}

fn parse_record(bytes: &[u8]) -> Result<Record, RecordError> {
    /// What a record of every format has.
    #[derive(Deserialize)]
    struct Header {
        format: u32,
    }
    let header: Header = serde_json::from_slice(bytes)?;
    match header.format {
        FORMAT => Ok(serde_json::from_slice(bytes)?),
        newer if newer > FORMAT => Err(RecordError::Newer(newer)),
        older => Err(RecordError::Older(older)),
    }
}

#[cfg(test)]
mod tests;
