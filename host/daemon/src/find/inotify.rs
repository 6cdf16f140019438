//! Watches single directories, which only requires permission to read them.
//!
//! The plugin directory and each package's directory have their own watch. The recursive watches of
//! `notify` would be added after it has reported a new directory, and so miss changes in between, and
//! would hide that the limit is reached.
//!
//! Absent on purpose: who scans, and when.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use hotmerge_meta::PackageName;
use notify::{
    ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use rustix::io::Errno;

use super::{
    dirty::Change,
    errors::{LimitReached, WatchError},
    place::Identity,
    tell::{Teller, Watcher},
};

pub(super) struct Inotify {
    dir: PathBuf,
    watcher: RecommendedWatcher,
    covered: HashMap<PackageName, Identity>,
    /// Packages whose directories cannot be watched.
    uncovered: BTreeSet<PackageName>,
    /// The reason; nothing is tried again before a pass over everything.
    failure: Option<WatchError>,
}

impl Inotify {
    /// Watches the plugin directory.
    pub(super) fn start(dir: &Path, teller: &Arc<Teller>) -> Result<Box<dyn Watcher>, WatchError> {
        let (told, root) = (Arc::clone(teller), dir.to_owned());
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            tell(&told, &root, event);
        });
        let mut watcher = watcher.map_err(without_instance)?;
        watcher
            .watch(dir, RecursiveMode::NonRecursive)
            .map_err(without_watch)?;
        Ok(Box::new(Self {
            dir: dir.to_owned(),
            watcher,
            covered: HashMap::new(),
            uncovered: BTreeSet::new(),
            failure: None,
        }))
    }

    fn forget(&mut self, package: &PackageName) {
        if self.covered.remove(package).is_some() {
            // The watch ended with its directory, unless that was moved.
            let _ = self.watcher.unwatch(&self.dir.join(package.as_str()));
        }
    }
}

impl Watcher for Inotify {
    fn cover(&mut self, package: &PackageName, is_replaced: bool) {
        if self.covered.contains_key(package) {
            if !is_replaced {
                return;
            }
            self.forget(package);
        }
        if self.failure.is_some() {
            self.uncovered.insert(package.clone());
            return;
        }
        let path = self.dir.join(package.as_str());
        // A missing directory is reported as soon as it exists.
        let Ok(identity) = Identity::of_entry(&path) else {
            return;
        };
        match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.uncovered.remove(package);
                self.covered.insert(package.clone(), identity);
            }
            Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
            Err(error) => {
                self.uncovered.insert(package.clone());
                self.failure = Some(without_watch(error));
            }
        }
    }

    fn uncover(&mut self, package: &PackageName) {
        self.forget(package);
        self.uncovered.remove(package);
    }

    fn check_mounts(&mut self) {
        let is_same = |(package, identity): &(&PackageName, &Identity)| {
            Identity::of_entry(&self.dir.join(package.as_str())).is_ok_and(|it| it == **identity)
        };
        let changed = self.covered.iter().filter(|it| !is_same(it));
        let changed: Vec<_> = changed.map(|(package, _)| package.clone()).collect();
        for package in changed {
            self.forget(&package);
        }
    }

    fn retry(&mut self) {
        self.failure = None;
        self.uncovered.clear();
    }

    fn directories(&self) -> u64 {
        1 + self.covered.len() as u64
    }

    fn scope(&self) -> String {
        "a watch for each directory".to_owned()
    }

    fn failure(&self) -> Option<String> {
        let why = self.failure.as_ref()?;
        Some(match self.uncovered.len() {
            1 => format!("1 package is not watched: {why}"),
            more => format!("{more} packages are not watched: {why}"),
        })
    }
}

/// Ignores reads, because the host's own ones would otherwise keep it looking forever.
fn tell(teller: &Teller, root: &Path, event: notify::Result<Event>) {
    let event = match event {
        Ok(event) if event.need_rescan() => {
            return teller.lost_events(&"the queue of inotify was full");
        }
        Ok(event) => event,
        Err(error) => return teller.lost_events(&error),
    };
    if let EventKind::Access(kind) = event.kind
        && kind != AccessKind::Close(AccessMode::Write)
    {
        return;
    }
    for path in &event.paths {
        let Ok(inner) = path.strip_prefix(root) else {
            continue;
        };
        let mut parts = inner.iter();
        match (parts.next(), parts.next()) {
            (None, _) => teller.anything_changed(),
            (Some(name), deeper) => {
                let change = match deeper {
                    Some(_) => Change::Contents,
                    None => Change::Directory,
                };
                match name.to_str() {
                    Some(name) => teller.changed(name, change),
                    None => teller.anything_changed(),
                }
            }
        }
    }
}

fn without_instance(error: notify::Error) -> WatchError {
    match &error.kind {
        ErrorKind::Io(io) if Errno::from_io_error(io) == Some(Errno::MFILE) => {
            LimitReached::instances().into()
        }
        _ => WatchError::Watcher(error),
    }
}

fn without_watch(error: notify::Error) -> WatchError {
    match error.kind {
        ErrorKind::MaxFilesWatch => LimitReached::watches().into(),
        _ => WatchError::Watcher(error),
    }
}
