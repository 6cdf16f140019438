//! The last good versions of each plugin and the operator's choices, on disk.
//!
//! ```text
//! STATE_DIR/plugins/NAME.json   what ran last, which versions are kept, what was chosen
//! STATE_DIR/images/HASH.so      verified bytes
//! STATE_DIR/newest.json         the newest signed versions that have run
//! ```
//!
//! Invariants: every file is written under another name, synced and renamed, so that a host killed at any
//! moment leaves the old file or the new one. An image is written before the first record that names it,
//! and removed after the last. Records are written in the order of the states that they describe. The
//! store is not trusted: an image is verified again before it is loaded, and whenever its version goes
//! live; a record counts only if only root and the host's user could have written it. A record in a newer
//! format is left alone, with its images, because the host that wrote it may return. The lock on the
//! records is taken before the one on the host's state, never while that is held.

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

use crate::{
    find::signed::{Newest, SignedText},
    record::events::{Happened, HostEvent, PluginEvent},
};

mod folder;
mod foreign;
mod names;
mod unwritten;

pub use folder::StoreError;
use folder::{Folder, failed};
use foreign::Foreign;
use names::{image_name, record_name};
use unwritten::Unwritten;

/// The file of the newest signed versions that have run.
const NEWEST: &str = "newest.json";

/// The newest format that this host reads. Every new field makes a new format, because an older host
/// that writes the record would lose the field.
const FORMAT: u32 = 2;

/// The format that this host writes unless a record needs the newer one, so that older hosts can read it.
const UNSIGNED: u32 = 1;

/// A plugin's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    /// The version that ran last.
    live: Digest,
    /// Its package at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    package: Option<PackageName>,
    /// Versions that went live, newest first.
    versions: Vec<PluginMeta>,
    /// Their signatures, for signed ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    signed: BTreeMap<Digest, SignedText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    choice: Option<RecordedChoice>,
}

/// Why a record is ignored.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("a newer host wrote it, in format {0}, and this host reads format {FORMAT} at most")]
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

    /// Whether a version must be kept, however old it is.
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
    newest: Mutex<BTreeMap<PluginName, Newest>>,
    /// Records that only a newer host can read.
    foreign: Foreign,
    unwritten: Unwritten,
    /// What was noticed and nobody has taken yet.
    news: Mutex<Vec<Happened>>,
    limit: usize,
    _lock: File,
}

/// The last recorded facts about a plugin.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    pub(crate) plugin: PluginName,
    /// The version that ran.
    pub(crate) live: Option<Arc<PluginMeta>>,
    /// Its package.
    pub(crate) package: Option<PackageName>,
    pub(crate) choice: Option<Choice>,
}

/// The running version of a plugin.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) live: Arc<PluginMeta>,
    /// Its package, if the directory contains it.
    pub(crate) package: Option<PackageName>,
    pub(crate) choice: Option<Choice>,
    /// Its signature, if it has one.
    pub(crate) signed: Option<SignedText>,
    /// The newest that has run, if it was signed.
    pub(crate) newest: Option<Newest>,
}

/// What to write about a plugin.
#[derive(Clone, Debug)]
pub(crate) enum Now {
    /// Its running version and the operator's choice.
    Runs(Running),
    /// It is gone: remove its record.
    Gone,
    /// Nothing: its record stays.
    AsItWas,
}

/// The free space of a state directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Whether it exists already.
    pub(crate) exists: bool,
    /// Free space, in bytes.
    pub(crate) free_bytes: u64,
}

impl Store {
    /// Checks whether a directory could be opened as a store and written. It creates nothing and takes no
    /// lock, because a host may be using it.
    pub(crate) fn examine(dir: &Path) -> Result<Room, StoreError> {
        let exists = dir.symlink_metadata().is_ok();
        let free_bytes = match exists {
            true => Folder::open(dir)?.try_writing()?,
            false => folder::try_making(dir)?,
        };
        Ok(Room { exists, free_bytes })
    }

    /// Opens a store, creates it if it is missing, and removes what a killed host left.
    pub(crate) fn open(dir: &Path, limit: usize) -> Result<Self, StoreError> {
        let dir = Folder::open(dir)?;
        let lock = dir.lock_file("lock")?;
        let mut store = Self {
            plugins: dir.sub("plugins")?,
            images: dir.sub("images")?,
            dir,
            records: Mutex::default(),
            newest: Mutex::default(),
            foreign: Foreign::default(),
            unwritten: Unwritten::default(),
            news: Mutex::default(),
            limit,
            _lock: lock,
        };
        store.read_records()?;
        store.read_newest()?;
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
                // Only this host writes here: a file without a plugin's name is incomplete.
                let _ = self.plugins.remove(&name);
                continue;
            };
            // Another user who could have planted it must not decide what runs.
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
                    let reason = error.to_string();
                    let event = PluginEvent::RecordUnused { reason };
                    self.notice(Happened::Plugin(plugin, event));
                }
                Err(error @ (RecordError::Json(_) | RecordError::Older(_))) => {
                    let reason = error.to_string();
                    let event = PluginEvent::RecordUnreadable { reason };
                    self.notice(Happened::Plugin(plugin, event));
                }
            }
        }
        self.records = Mutex::new(records);
        Ok(())
    }

    /// It includes plugins that are gone, because an old version of one may return.
    fn read_newest(&self) -> Result<(), StoreError> {
        if !self.dir.has(NEWEST) {
            return Ok(());
        }
        match serde_json::from_slice(&self.dir.read(NEWEST)?) {
            Ok(newest) => *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = newest,
            Err(error) => {
                let reason = error.to_string();
                self.notice(Happened::Host(HostEvent::NewestUnreadable { reason }));
            }
        }
        Ok(())
    }

    fn notice(&self, happened: Happened) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.push(happened);
    }

    /// What was noticed since the last time this was called.
    pub(crate) fn take_news(&self) -> Vec<Happened> {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut news)
    }

    /// The newest signed versions that have run.
    pub(crate) fn newest(&self) -> Vec<(PluginName, Newest)> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.clone().into_iter().collect()
    }

    fn write_newest(&self, plugin: &PluginName, now: Option<&Newest>) -> Result<(), StoreError> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(now) = now.filter(|it| newest.get(plugin) != Some(it)) else {
            return Ok(());
        };
        let mut all = newest.clone();
        all.insert(plugin.clone(), now.clone());
        let text =
            serde_json::to_vec(&all).map_err(failed("write", &self.dir.path().join(NEWEST)))?;
        self.dir.write(NEWEST, &text)?;
        *newest = all;
        Ok(())
    }

    /// The signature of a stored version.
    pub(crate) fn signed(&self, meta: &PluginMeta) -> Option<SignedText> {
        let records = self.lock();
        records.get(&meta.name)?.signed.get(&meta.hash).cloned()
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

    /// Its directory.
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

    /// The versions of a plugin to which it can be rolled back, newest first.
    pub(crate) fn versions(&self, plugin: &str) -> Vec<PluginMeta> {
        let records = self.lock();
        let record = records.get(plugin);
        record.map_or_else(Vec::new, |record| record.versions.clone())
    }

    /// The bytes of a version, unverified.
    pub(crate) fn image(&self, hash: &Digest) -> Result<Vec<u8>, StoreError> {
        self.images.read(&image_name(hash))
    }

    /// Writes a plugin's record, or removes it with the plugin. `now` determines the current state and runs
    /// under the store's lock, so that states are written in their order; `image` returns the bytes of the
    /// running version.
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
                .and_then(|()| self.write_newest(plugin, running.newest.as_ref()))
                .and_then(|()| self.write_down(&mut records, &running, || image(&running.live))),
            Now::Gone => self.forget(&mut records, plugin),
            Now::AsItWas => Ok(()),
        };
        self.unwritten.note(plugin, done.as_ref().err());
        done
    }

    /// Checks that writing a record would not replace one of a newer host.
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

    /// Why a plugin's record could not be written.
    pub(crate) fn unwritten(&self, plugin: &str) -> Option<String> {
        self.unwritten.reason(plugin)
    }

    /// The current problem of the store.
    pub(crate) fn failure(&self) -> Option<StoreFailure> {
        self.unwritten.describe()
    }

    /// When to try again to write records.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.unwritten.retry_at()
    }

    /// The plugins whose records are to be written again. Calling this counts as an attempt.
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
            format: UNSIGNED,
            live: live.hash,
            package: None,
            versions: Vec::new(),
            signed: BTreeMap::new(),
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
        match &running.signed {
            Some(signed) => record.signed.insert(live.hash, signed.clone()),
            None => record.signed.remove(&live.hash),
        };
        let kept = record.versions.iter().map(|meta| meta.hash);
        let kept: BTreeSet<_> = kept.collect();
        record.signed.retain(|hash, _| kept.contains(hash));
        record.format = match record.signed.is_empty() {
            true => UNSIGNED,
            false => FORMAT,
        };
        if records.get(&live.name) == Some(&record) {
            return is_good;
        }
        let name = record_name(&live.name);
        let text = serde_json::to_vec(&record)
            .map_err(failed("write", &self.plugins.path().join(&name)))?;
        if let Err(error) = self.plugins.write(&name, &text) {
            // An image that no record names would only fill the disk.
            self.drop_images(records, Some(record));
            return Err(error);
        }
        let old = records.insert(live.name.clone(), record);
        self.drop_images(records, old);
        is_good
    }

    /// Makes sure that the image of a version is stored and intact. A good copy exists while the version
    /// runs, and perhaps not later.
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
                    let name = name.clone();
                    self.notice(Happened::Host(HostEvent::ImageDamaged { name }));
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
                // At worst it stays until the next start.
                let _ = self.images.remove(&image_name(&meta.hash));
            }
        }
    }
}

fn parse_record(bytes: &[u8]) -> Result<Record, RecordError> {
    /// The fields of a record in any format.
    #[derive(Deserialize)]
    struct Header {
        format: u32,
    }
    let header: Header = serde_json::from_slice(bytes)?;
    match header.format {
        UNSIGNED..=FORMAT => Ok(serde_json::from_slice(bytes)?),
        newer if newer > FORMAT => Err(RecordError::Newer(newer)),
        older => Err(RecordError::Older(older)),
    }
}

#[cfg(test)]
mod tests;
