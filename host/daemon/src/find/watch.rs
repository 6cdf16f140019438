//! Watches the plugin directory, the packages in it, and the path to it. A watcher only hints: whatever
//! it reports or misses, the next scan finds the truth.
//!
//! Two kinds run side by side where they may, and both write into one set of dirty packages. A kind that
//! has lost events is restarted before a scan of everything, because it may have missed that a directory
//! was replaced. Where no kind notices all changes, the directory is polled.
//!
//! Neither name nor inode number identifies a directory: both are reused.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use hotmerge_meta::{PackageName, control::WatcherStatus};

use super::{
    choice::Watch,
    dirty::{Dirty, DirtySet},
    errors::WatchError,
    fanotify::Fanotify,
    inotify::Inotify,
    kind::{Kind, Start},
    path_watch::{PathChange, PathWatch},
    place::{self, Identity},
    scan::Cover,
    tell::{Hint, Tell},
};
use crate::record::events::WatchEvent;

/// How often watching is restarted immediately if the directory changes meanwhile.
const ATTEMPTS: usize = 3;

/// The watchers of the plugin directory.
pub(crate) struct Watchers {
    dir: PathBuf,
    choice: Watch,
    dirty: Arc<DirtySet>,
    hint: Hint,
    tell: Tell,
    /// Names the file system of a directory if others can change it without this kernel's knowledge.
    remote: fn(&Path) -> Option<&'static str>,
    watching: Mutex<Watching>,
}

struct Watching {
    /// The directory that is being watched.
    at: Option<Identity>,
    /// Why none is watched.
    absent: Option<String>,
    path: Option<Result<PathWatch, WatchError>>,
    signs: Arc<Signs>,
    kinds: [Kind; 2],
    /// The file system of the plugin directory, if it is remote.
    remote: Option<&'static str>,
    /// The file systems of packages; none for those that are not remote.
    remote_packages: BTreeMap<PackageName, Option<&'static str>>,
    is_stopped: bool,
}

/// What the watch on the path to the directory has reported.
#[derive(Default)]
struct Signs {
    /// The path may name another directory now.
    gone: AtomicBool,
    /// File systems were mounted or unmounted.
    mounts: AtomicBool,
}

impl Watchers {
    /// `hint` is called whenever something may have changed. It must not block.
    pub(crate) fn new(dir: PathBuf, choice: Watch, hint: Hint, tell: Tell) -> Self {
        let of_directories = choice != Watch::Auto;
        let fanotify: Start =
            Box::new(move |dir, teller| Fanotify::start(dir, of_directories, teller));
        let inotify: Start = Box::new(Inotify::start);
        let kinds = [
            Kind::new("inotify", choice.has_inotify(), inotify, &tell),
            Kind::new("fanotify", choice.has_fanotify(), fanotify, &tell),
        ];
        Self {
            dir,
            choice,
            dirty: Arc::default(),
            hint,
            tell,
            remote: place::remote,
            watching: Mutex::new(Watching {
                at: None,
                absent: None,
                path: None,
                signs: Arc::default(),
                kinds,
                remote: None,
                remote_packages: BTreeMap::new(),
                is_stopped: false,
            }),
        }
    }

    /// Takes what may have changed. The caller must scan it, or everything if `is_full`. Afterwards
    /// the directory that the path names is watched; if it was not before, everything is dirty.
    pub(crate) fn take(&self, is_full: bool) -> Dirty {
        let mut dirty = self.dirty.take();
        let is_idle = dirty.is_empty() && !is_full;
        if matches!(self.choice, Watch::Poll | Watch::Off) || is_idle && !self.is_away() {
            return if is_full { dirty.widen() } else { dirty };
        }
        let mut watching = self.lock();
        if !watching.is_stopped && self.keep(&mut watching, &dirty, is_full) || is_full {
            dirty = dirty.widen();
        }
        dirty
    }

    /// Watches the directory that the path names now. Returns whether anything was restarted.
    fn keep(&self, watching: &mut Watching, dirty: &Dirty, is_full: bool) -> bool {
        let mut is_anew = false;
        for _ in 0..ATTEMPTS {
            let now = match Identity::of(&self.dir) {
                Ok(now) => now,
                Err(error) => {
                    let reason = error.to_string();
                    if watching.lose(&reason) {
                        (self.tell)(WatchEvent::DirectoryUnwatched { reason });
                    }
                    return is_anew;
                }
            };
            if watching.is_of(now) {
                return is_anew || self.keep_kinds(watching, dirty, is_full);
            }
            is_anew = true;
            self.begin(watching, now);
        }
        is_anew
    }

    fn begin(&self, watching: &mut Watching, identity: Identity) {
        watching.absent = None;
        watching.at = Some(identity);
        watching.remote = (self.remote)(&self.dir);
        watching.remote_packages.clear();
        watching.signs = Arc::default();
        let path = self.watch_path(&watching.signs);
        if let Err(error) = &path {
            let reason = error.to_string();
            (self.tell)(WatchEvent::PathUnwatched { reason });
        }
        watching.path = Some(path);
        for kind in &mut watching.kinds {
            kind.begin(&self.dir, &self.dirty, &self.hint);
        }
    }

    fn watch_path(&self, signs: &Arc<Signs>) -> Result<PathWatch, WatchError> {
        let (hint, dirty) = (Arc::clone(&self.hint), Arc::clone(&self.dirty));
        let signs = Arc::clone(signs);
        PathWatch::watch(&self.dir, move |change| {
            let sign = match change {
                PathChange::Gone => &signs.gone,
                PathChange::Mounts => &signs.mounts,
            };
            sign.store(true, Ordering::Release);
            dirty.mark_all(false);
            hint();
        })
    }

    /// Restarts those kinds that may have missed something or could not start before.
    fn keep_kinds(&self, watching: &mut Watching, dirty: &Dirty, is_full: bool) -> bool {
        let is_stale = *dirty == Dirty::All { is_stale: true };
        let have_mounts_changed = watching.signs.mounts.swap(false, Ordering::AcqRel);
        if have_mounts_changed {
            watching.remote_packages.clear();
        }
        let mut is_anew = false;
        if is_full && matches!(watching.path, Some(Err(_))) {
            watching.path = Some(self.watch_path(&watching.signs));
        }
        for kind in &mut watching.kinds {
            if have_mounts_changed {
                kind.check_mounts();
            }
            if is_full {
                kind.retry();
            }
            if kind.is_behind() || is_stale && kind.is_on() || is_full && kind.has_failed() {
                kind.begin(&self.dir, &self.dirty, &self.hint);
                is_anew = true;
            }
        }
        is_anew
    }

    /// Whether the directory was missing at the last attempt.
    fn is_away(&self) -> bool {
        self.lock().at.is_none()
    }

    /// Why the directory must be polled, if it must.
    pub(crate) fn must_poll(&self) -> Option<String> {
        match self.choice {
            Watch::Poll => return Some("by configuration".to_owned()),
            Watch::Off => return None,
            Watch::Auto | Watch::Inotify | Watch::Fanotify | Watch::Both => {}
        }
        let watching = self.lock();
        if watching.is_stopped || watching.at.is_none() {
            return None;
        }
        if let Some(kind) = watching.remote_kind() {
            return Some(format!("{kind} does not report changes made elsewhere"));
        }
        if let Some(Err(why)) = &watching.path {
            return Some(format!(
                "the path to the plugin directory is not watched: {why}"
            ));
        }
        if watching.kinds.iter().any(Kind::is_whole) {
            return None;
        }
        let reasons = watching.kinds.iter().filter_map(Kind::reason);
        Some(reasons.collect::<Vec<_>>().join("; "))
    }

    /// Describes what is watched, or why nothing is.
    pub(crate) fn describe(&self, poll_ms: u64) -> String {
        if self.choice == Watch::Off {
            return "off: off by configuration".to_owned();
        }
        let poll = self.must_poll();
        let poll = poll.map(|why| format!("polling every {poll_ms} ms ({why})"));
        let watching = self.lock();
        if watching.is_stopped {
            return "off: the host stops".to_owned();
        }
        if let Some(reason) = &watching.absent {
            return format!("off: {reason}");
        }
        if watching.signs.gone.load(Ordering::Acquire) {
            return "off: the plugin directory is gone, and the host waits for another".to_owned();
        }
        let kinds = watching.kinds.iter().filter(|kind| kind.is_on());
        let kinds = kinds.map(|kind| kind.name.to_owned());
        let mut text = kinds.chain(poll).collect::<Vec<_>>().join(" and ");
        if text.is_empty() {
            "off: not started".clone_into(&mut text);
        }
        text
    }

    /// The status of each wanted kind of watcher.
    pub(crate) fn status(&self) -> Vec<WatcherStatus> {
        let watching = self.lock();
        watching.kinds.iter().filter_map(Kind::status).collect()
    }

    pub(crate) fn stop(&self) {
        let mut watching = self.lock();
        watching.end("the host stops");
        watching.is_stopped = true;
    }

    fn lock(&self) -> MutexGuard<'_, Watching> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn is_up_to_date(&self) -> bool {
        Identity::of(&self.dir).is_ok_and(|now| self.lock().is_of(now))
    }
}

impl Watching {
    /// Whether the watched directory is the one that the path names, as far as the kernel has reported.
    fn is_of(&self, now: Identity) -> bool {
        self.at == Some(now) && !self.signs.gone.load(Ordering::Acquire)
    }

    /// The remote file system of the plugin directory, or of a package.
    fn remote_kind(&self) -> Option<&'static str> {
        let packages = self.remote_packages.values().copied();
        self.remote.or_else(|| packages.flatten().next())
    }

    /// Watches nothing any more. Returns whether that is news while the host goes on.
    fn lose(&mut self, reason: &str) -> bool {
        let is_news = self.absent.as_deref() != Some(reason) && !self.is_stopped;
        self.end(reason);
        is_news
    }

    fn end(&mut self, reason: &str) {
        self.at = None;
        self.absent = Some(reason.to_owned());
        self.path = None;
        for kind in &mut self.kinds {
            kind.end();
        }
    }
}

/// Each call takes the lock separately, so that a status request never waits for a whole pass.
impl Cover for &Watchers {
    fn cover(&mut self, package: &PackageName, is_replaced: bool) {
        let mut watching = self.lock();
        for kind in &mut watching.kinds {
            kind.cover(package, is_replaced);
        }
        if is_replaced || !watching.remote_packages.contains_key(package) {
            let remote = (self.remote)(&self.dir.join(package.as_str()));
            watching.remote_packages.insert(package.clone(), remote);
        }
    }

    fn uncover(&mut self, package: &PackageName) {
        let mut watching = self.lock();
        for kind in &mut watching.kinds {
            kind.uncover(package);
        }
        watching.remote_packages.remove(package);
    }
}

#[cfg(test)]
mod tests;
