//! Watches whole file systems where the kernel and this user's rights allow it, otherwise single
//! directories.
//!
//! An event names a directory by its handle, and an entry in it. The watcher knows the handles of the
//! plugin directory and its packages, and ignores events with other handles. It never opens a handle,
//! and so causes no events itself.
//!
//! Absent on purpose: permission events; they would let a stalled host hold up the whole system.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use hotmerge_fanotify::{
    Group, Handle,
    records::{Malformed, Place, Record, records},
};
use hotmerge_meta::PackageName;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};

use super::{
    dirty::Change,
    errors::{LimitReached, WatchError},
    place::Identity,
    tell::{Teller, Watcher},
};

/// Pause between two reads, so that a busy file system's many foreign events are read together. Shorter
/// than the time for which the clock waits for the end of a burst.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// Room for some hundred records.
const BUFFER_BYTES: usize = 32 << 10;

pub(super) struct Fanotify {
    dir: PathBuf,
    marks: Marks,
    known: Arc<Mutex<Handles>>,
    covered: HashMap<PackageName, (Handle, Identity)>,
    uncovered: BTreeSet<PackageName>,
    failure: Option<WatchError>,
    reader: Reader,
}

/// The marks of the group.
struct Marks {
    group: Arc<Group>,
    /// Devices whose whole file systems are marked.
    file_systems: BTreeSet<(u32, u32)>,
    /// Why the plugin directory's file system is not marked.
    refused: Option<io::Error>,
}

/// The directories that these handles name.
struct Handles {
    root: Handle,
    /// Handles of different file systems may be equal: those of fresh ones are.
    packages: HashMap<Handle, BTreeSet<PackageName>>,
}

impl Handles {
    fn insert(&mut self, handle: Handle, package: PackageName) {
        self.packages.entry(handle).or_default().insert(package);
    }

    fn remove(&mut self, handle: &Handle, package: &PackageName) {
        if let Some(packages) = self.packages.get_mut(handle) {
            packages.remove(package);
            if packages.is_empty() {
                self.packages.remove(handle);
            }
        }
    }
}

impl Fanotify {
    /// Watches the plugin directory. Without `of_directories` it marks only the whole file system, if this
    /// user may.
    pub(super) fn start(
        dir: &Path,
        of_directories: bool,
        teller: &Arc<Teller>,
    ) -> Result<Box<dyn Watcher>, WatchError> {
        let root = open(dir, OFlags::empty())?;
        let device = Identity::of(dir)?.device();
        let mut marks = Marks::new().map_err(|error| match error {
            WatchError::NoFanotify(why) if !of_directories && errno(&why) == Some(Errno::PERM) => {
                WatchError::NotPermitted
            }
            error => error,
        })?;
        if !marks.mark(&root, device)? && !of_directories && marks.is_forbidden() {
            return Err(WatchError::NotPermitted);
        }
        let known = Arc::new(Mutex::new(Handles {
            root: Handle::of(&root).map_err(WatchError::Unmarked)?,
            packages: HashMap::new(),
        }));
        let reader = Reader::start(&marks.group, &known, teller)?;
        Ok(Box::new(Self {
            dir: dir.to_owned(),
            marks,
            known,
            covered: HashMap::new(),
            uncovered: BTreeSet::new(),
            failure: None,
            reader,
        }))
    }

    fn forget(&mut self, package: &PackageName) {
        if let Some((handle, _)) = self.covered.remove(package) {
            lock(&self.known).remove(&handle, package);
        }
    }

    fn watch(&mut self, package: &PackageName) -> Result<(), WatchError> {
        let path = self.dir.join(package.as_str());
        let directory = open(&path, OFlags::NOFOLLOW)?;
        let identity = Identity::of_entry(&path)?;
        self.marks.mark(&directory, identity.device())?;
        let handle = Handle::of(&directory).map_err(WatchError::Unmarked)?;
        lock(&self.known).insert(handle.clone(), package.clone());
        self.covered.insert(package.clone(), (handle, identity));
        Ok(())
    }
}

impl Watcher for Fanotify {
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
        match self.watch(package) {
            Ok(()) => {
                self.uncovered.remove(package);
            }
            // A missing directory is reported as soon as it exists.
            Err(WatchError::Dir(_)) => {}
            Err(error) => {
                self.uncovered.insert(package.clone());
                self.failure = Some(error);
            }
        }
    }

    fn uncover(&mut self, package: &PackageName) {
        self.forget(package);
        self.uncovered.remove(package);
    }

    fn check_mounts(&mut self) {
        let is_same = |package: &PackageName, identity: Identity| {
            Identity::of_entry(&self.dir.join(package.as_str())).is_ok_and(|it| it == identity)
        };
        let covered = self.covered.iter();
        let changed = covered.filter(|(package, (_, identity))| !is_same(package, *identity));
        let changed: Vec<_> = changed.map(|(package, _)| package.clone()).collect();
        for package in changed {
            self.forget(&package);
        }
        // The number of a removed device may be reused.
        self.marks.file_systems.clear();
    }

    fn retry(&mut self) {
        self.failure = None;
        self.uncovered.clear();
    }

    fn directories(&self) -> u64 {
        1 + self.covered.len() as u64
    }

    fn scope(&self) -> String {
        let is_whole = !self.marks.file_systems.is_empty();
        match (&self.marks.refused, is_whole) {
            (None, _) => "a mark for the whole file system".to_owned(),
            (Some(why), true) => {
                format!("marks for whole file systems, and for directories of others ({why})")
            }
            (Some(why), false) => {
                format!("a mark for each directory, not for the whole file system ({why})")
            }
        }
    }

    fn failure(&self) -> Option<String> {
        if !self.reader.is_reading() {
            return Some("its thread has ended".to_owned());
        }
        let why = self.failure.as_ref()?;
        Some(match self.uncovered.len() {
            1 => format!("1 package is not watched: {why}"),
            more => format!("{more} packages are not watched: {why}"),
        })
    }
}

impl Marks {
    fn new() -> Result<Self, WatchError> {
        let group = Group::new().map_err(|error| match errno(&error) {
            Some(Errno::MFILE) => {
                LimitReached::of("fanotify groups", "fs.fanotify.max_user_groups").into()
            }
            _ => WatchError::NoFanotify(error),
        })?;
        Ok(Self {
            group: Arc::new(group),
            file_systems: BTreeSet::new(),
            refused: None,
        })
    }

    /// Marks the file system of a directory, and the directory itself for writes in progress; otherwise only
    /// the directory, for everything. Returns whether it marked the file system.
    fn mark(&mut self, directory: &OwnedFd, device: (u32, u32)) -> Result<bool, WatchError> {
        let is_whole = self.file_systems.contains(&device) || self.mark_whole(directory, device);
        let marked = match is_whole {
            true => self.group.mark_writes(directory),
            false => self.group.mark_directory(directory),
        };
        marked.map_err(|error| match errno(&error) {
            Some(Errno::NOSPC) => {
                LimitReached::of("fanotify marks", "fs.fanotify.max_user_marks").into()
            }
            _ => WatchError::Unmarked(error),
        })?;
        Ok(is_whole)
    }

    fn mark_whole(&mut self, directory: &OwnedFd, device: (u32, u32)) -> bool {
        // EPERM: an ordinary user. EXDEV: a subvolume of btrfs. EOPNOTSUPP and ENODEV: a file system without
        // persistent handles, such as overlayfs and FUSE.
        match self.group.mark_file_system(directory) {
            Ok(()) => {
                self.file_systems.insert(device);
                true
            }
            Err(error) => {
                self.refused.get_or_insert(error);
                false
            }
        }
    }

    /// Whether this user may not mark file systems.
    fn is_forbidden(&self) -> bool {
        self.refused.as_ref().and_then(errno) == Some(Errno::PERM)
    }
}

/// Reads a group's records on a thread of its own until dropped.
struct Reader {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn start(
        group: &Arc<Group>,
        known: &Arc<Mutex<Handles>>,
        teller: &Arc<Teller>,
    ) -> Result<Self, WatchError> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(io::Error::from)?;
        let stopped = stop.try_clone()?;
        let (group, known, teller) = (Arc::clone(group), Arc::clone(known), Arc::clone(teller));
        let thread = thread::Builder::new()
            .name("fanotify".into())
            .spawn(move || {
                if let Err(error) = read(&group, &stopped, &known, &teller) {
                    teller.lost_events(&error);
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    fn is_reading(&self) -> bool {
        self.thread.as_ref().is_some_and(|it| !it.is_finished())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic.
            let _ = thread.join();
        }
    }
}

fn read(group: &Group, stop: &OwnedFd, known: &Mutex<Handles>, teller: &Teller) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        if is_told_to_stop(stop, Some(group), None)? {
            return Ok(());
        }
        // A stream that never pauses must not keep it from its end.
        while !is_told_to_stop(stop, None, Some(Duration::ZERO))? {
            match group.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => tell_all(buffer.get(..length).unwrap_or_default(), known, teller),
                Err(error) => match errno(&error) {
                    Some(Errno::AGAIN) => break,
                    Some(Errno::INTR) => {}
                    _ => return Err(error),
                },
            }
        }
        if is_told_to_stop(stop, None, Some(PAUSE))? {
            return Ok(());
        }
    }
}

/// Waits for records or for the end; returns whether it is the end.
fn is_told_to_stop(
    stop: &OwnedFd,
    group: Option<&Group>,
    limit: Option<Duration>,
) -> io::Result<bool> {
    let mut sources = vec![PollFd::new(stop, PollFlags::IN)];
    sources.extend(group.map(|group| PollFd::new(group, PollFlags::IN)));
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(&mut sources, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(sources
        .first()
        .is_some_and(|stop| !stop.revents().is_empty()))
}

fn tell_all(bytes: &[u8], known: &Mutex<Handles>, teller: &Teller) {
    for record in records(bytes) {
        if let Err(error) = record.and_then(|record| tell(&record, known, teller)) {
            teller.lost_events(&error);
        }
    }
}

fn tell(record: &Record<'_>, known: &Mutex<Handles>, teller: &Teller) -> Result<(), Malformed> {
    if record.is_overflow() {
        teller.lost_events(&"the queue of fanotify was full");
        return Ok(());
    }
    for place in record.places() {
        let Place { directory, name } = place?;
        let known = lock(known);
        let root: &[u8] = known.root.borrow();
        let itself = matches!(name, None | Some(b"."));
        if directory == root {
            let name = name.filter(|_| !itself);
            match name.and_then(|name| str::from_utf8(name).ok()) {
                Some(name) => teller.changed(name, Change::Directory),
                None => teller.anything_changed(),
            }
        }
        let change = match itself {
            true => Change::Directory,
            false => Change::Contents,
        };
        for package in known.packages.get(directory).into_iter().flatten() {
            teller.changed(package.as_str(), change);
        }
    }
    Ok(())
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

fn lock(known: &Mutex<Handles>) -> MutexGuard<'_, Handles> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
