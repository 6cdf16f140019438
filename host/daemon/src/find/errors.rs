//! Why the plugin directory, or a package in it, cannot be read or watched.

use std::{fs, io, path::PathBuf};

use hotmerge_meta::{META_FILE, MetaError, NameError, PackageName, Untrusted};
use rustix::io::Errno;

/// The plugin directory cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirError {
    /// It cannot be opened.
    #[error("plugin directory `{}` cannot be opened: {source}", .dir.display())]
    Open {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        source: Errno,
    },
    /// Another user may write to it.
    #[error("plugin directory: {0}")]
    Untrusted(#[from] Untrusted),
    /// It cannot be listed.
    #[error("plugin directory `{}` cannot be read: {source}", .dir.display())]
    List {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        source: Errno,
    },
}

/// A package cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unopened {
    #[error("package `{0}` cannot be opened: {1}")]
    Io(PackageName, Errno),
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
}

impl Unopened {
    /// Whether the directory is missing at the moment.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io(_, Errno::NOENT))
    }
}

/// An entry of the plugin directory is not a package.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPackage {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("it is a symbolic link; put the package itself into the plugin directory")]
    Symlink,
    #[error("it is not a directory; put it and its {META_FILE} into a directory of their own")]
    NoDirectory,
}

/// A package's meta is not usable yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoMeta {
    #[error("it has no {META_FILE}; stage the package again, or remove it")]
    Missing,
    #[error("its {META_FILE} cannot be examined: {0}")]
    Unexamined(io::Error),
    #[error(transparent)]
    Package(#[from] Unopened),
    #[error(transparent)]
    Invalid(#[from] MetaError),
}

/// The plugin directory is not watched.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error(transparent)]
    Dir(#[from] io::Error),
    #[error(transparent)]
    Limit(#[from] LimitReached),
    /// It needs privileges, and the configuration does not demand it.
    #[error("marking file systems needs the capability CAP_SYS_ADMIN")]
    NotPermitted,
    #[error("fanotify is not available: {0}")]
    NoFanotify(#[source] io::Error),
    #[error("the file system supports no marks of fanotify: {0}")]
    Unmarked(#[source] io::Error),
    #[error(transparent)]
    Watcher(notify::Error),
}

/// The system's limit for this user's watches.
#[derive(Debug, thiserror::Error)]
#[error("the limit of {what} is reached{}; raise it by `sysctl -w {setting}={}`",
    .value.map_or_else(String::new, |value| format!(" ({value})")),
    .value.map_or(1024, |value| value.saturating_mul(2).max(1024)))]
pub(super) struct LimitReached {
    what: &'static str,
    setting: &'static str,
    value: Option<u64>,
}

impl LimitReached {
    pub(super) fn instances() -> Self {
        Self::of("inotify instances", "fs.inotify.max_user_instances")
    }

    pub(super) fn watches() -> Self {
        Self::of("inotify watches", "fs.inotify.max_user_watches")
    }

    pub(super) fn of(what: &'static str, setting: &'static str) -> Self {
        let path = format!("/proc/sys/{}", setting.replace('.', "/"));
        let value = fs::read_to_string(path).ok();
        Self {
            what,
            setting,
            value: value.and_then(|text| text.trim().parse().ok()),
        }
    }
}
