//! Notices when a path names another object: when something along it is moved, removed, replaced,
//! unmounted or mounted over.
//!
//! It watches each object along the path (directories, symbolic links, the last component) and the table
//! of mounts. Other changes in those directories cause no wake-up.
//!
//! Absent on purpose: the contents of the directory at the end.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File},
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    thread::{self, JoinHandle},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};

use super::errors::{LimitReached, WatchError};

/// The number of symbolic links that the kernel follows.
const LINKS: usize = 40;

/// What may have happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathChange {
    /// A component is gone. Further changes are not noticed.
    Gone,
    /// Something was mounted or unmounted, here or elsewhere.
    Mounts,
}

/// Watches the components of a path until dropped.
#[derive(Debug)]
pub(super) struct PathWatch {
    stop: OwnedFd,
    watching: Option<JoinHandle<()>>,
}

impl PathWatch {
    /// `changed` is called from another thread, and must not block.
    pub(super) fn watch(
        path: &Path,
        changed: impl Fn(PathChange) + Send + 'static,
    ) -> Result<Self, WatchError> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let watch = watch.map_err(|error| match error {
            Errno::MFILE => LimitReached::instances().into(),
            error => WatchError::Dir(error.into()),
        })?;
        let gone = WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF | WatchFlags::DONT_FOLLOW;
        for object in objects(path)? {
            // A replaced link at first only loses a name.
            let flags = match object.is_symlink() {
                true => gone | WatchFlags::ATTRIB,
                false => gone,
            };
            inotify::add_watch(&watch, &object, flags).map_err(|error| match error {
                Errno::NOSPC => LimitReached::watches().into(),
                error => WatchError::Dir(error.into()),
            })?;
        }
        // Without it, only mounts go unnoticed.
        let mounts = File::open("/proc/self/mountinfo").ok();
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(io::Error::from)?;
        let stopped = stop.try_clone()?;
        let watching = thread::Builder::new()
            .name("path-watch".into())
            .spawn(move || run(&watch, mounts.as_ref(), &stopped, &changed))?;
        Ok(Self {
            stop,
            watching: Some(watching),
        })
    }
}

impl Drop for PathWatch {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(watching) = self.watching.take() {
            // The thread cannot panic.
            let _ = watching.join();
        }
    }
}

fn run(watch: &OwnedFd, mounts: Option<&File>, stop: &OwnedFd, changed: &impl Fn(PathChange)) {
    loop {
        let mut sources = vec![
            PollFd::new(stop, PollFlags::IN),
            PollFd::new(watch, PollFlags::IN),
        ];
        // poll reports changes of this file as an error, without any requested event.
        sources.extend(mounts.map(|mounts| PollFd::new(mounts, PollFlags::PRI)));
        match poll(&mut sources, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return changed(PathChange::Gone),
        }
        let told = |index: usize| {
            sources
                .get(index)
                .is_some_and(|it| !it.revents().is_empty())
        };
        if told(0) {
            return;
        }
        if told(1) && is_gone(watch) {
            return changed(PathChange::Gone);
        }
        if told(2) {
            changed(PathChange::Mounts);
        }
    }
}

fn is_gone(watch: &OwnedFd) -> bool {
    let mut bytes = [const { MaybeUninit::uninit() }; 1024];
    let mut reader = inotify::Reader::new(watch, &mut bytes);
    match reader.next() {
        // Any event: nothing else was requested.
        Ok(_) => true,
        Err(Errno::AGAIN | Errno::INTR) => false,
        Err(_) => true,
    }
}

/// Every component of a path, including the last, as paths without links.
fn objects(path: &Path) -> io::Result<Vec<PathBuf>> {
    let path = std::path::absolute(path)?;
    let mut left: VecDeque<OsString> = parts(&path).collect();
    let mut at = PathBuf::from("/");
    let mut objects = Vec::new();
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let object = at.join(part);
        objects.push(object.clone());
        if !object.is_symlink() {
            at = object;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = fs::read_link(object)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(part);
        }
    }
    Ok(objects)
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_is_an_object() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("releases/1/plugins")).unwrap();
        symlink("releases/1", base.join("current")).unwrap();
        symlink(base.join("current/../1/plugins"), base.join("plugins")).unwrap();
        let objects = objects(&base.join("plugins")).unwrap();
        let own = objects.iter().filter_map(|it| it.strip_prefix(&base).ok());
        let own: Vec<_> = own.filter(|it| *it != Path::new("")).collect();
        assert_eq!(
            own,
            [
                "plugins",
                "current",
                "releases",
                "releases/1",
                "releases/1",
                "releases/1/plugins"
            ]
            .map(Path::new)
        );
    }

    #[test]
    fn circular_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        symlink("a", dir.path().join("a")).unwrap();
        objects(&dir.path().join("a")).unwrap_err();
    }
}
