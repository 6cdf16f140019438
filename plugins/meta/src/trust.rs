//! Whether somebody else could have written what a host is about to believe.
//!
//! Invariants: only descriptors are judged, those that are read and those of every directory and
//! every symbolic link on the way to them; nobody but root, the host's user and who else is named may
//! own any of them or write to it. A sticky directory may lie on the way, because others cannot
//! replace what they do not own in it, but not at its end, because they can add to it.
//!
//! A group that may write is somebody else, also a group of one: who is in it is decided elsewhere,
//! and may change. An access list shows in the same bits, as its mask.
//!
//! Absent on purpose: when to insist on it, which is for the host's configuration to say.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fmt, io,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fstat, fstatfs, openat, readlinkat},
    io::Errno,
    process::geteuid,
};

/// As many symbolic links as the kernel follows.
const LINKS: usize = 40;

/// Others that may write: the group, and everybody.
const OTHERS_WRITE: u32 = 0o022;

/// Whose files are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// `None` for everybody.
    owners: Option<Vec<u32>>,
}

/// What is wrong with a file or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Its owner may also write to it.
    Owner,
    /// Its mode permits it to its group or to everybody.
    Mode,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "it belongs to another user",
            Self::Mode => "others may write to it",
        })
    }
}

/// Somebody else could have written it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Untrusted {
    /// Somebody else may write to it, or to what it lies in.
    #[error(
        "`{}` is not safe: {flaw} (owner {owner}, mode {mode:04o}); run `{command}`",
        .path.display()
    )]
    Writable {
        /// The file, or the directory on the way to it.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
        /// Whose it is.
        owner: u32,
        /// Its permissions.
        mode: u32,
        /// The command that repairs it, for a shell.
        command: String,
    },
    /// The path leads elsewhere than a moment ago.
    #[error("`{}` was replaced while it was examined", .0.display())]
    Replaced(PathBuf),
    /// The way to it cannot be examined.
    #[error("failed to examine `{}`: {source}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Trust {
    /// Everything is believed.
    pub fn anybody() -> Self {
        Self::default()
    }

    /// Only what nobody but root and this process's user could have written.
    pub fn own() -> Self {
        Self {
            owners: Some(vec![0, geteuid().as_raw()]),
        }
    }

    /// What a process trusts by default: root only what is root's.
    pub fn by_default() -> Self {
        match geteuid().is_root() {
            true => Self::own(),
            false => Self::anybody(),
        }
    }

    /// Whether everything is believed.
    pub fn is_anybody(&self) -> bool {
        self.owners.is_none()
    }

    /// The same, and what belongs to this user.
    #[must_use]
    pub fn and(&self, user: u32) -> Self {
        let mut owners = self.owners.clone();
        if let Some(owners) = &mut owners {
            owners.push(user);
        }
        Self { owners }
    }

    /// What is wrong with a file or a directory that has this owner and this mode.
    pub fn flaw(&self, stat: &Stat) -> Option<Flaw> {
        let owners = self.owners.as_ref()?;
        if !owners.contains(&stat.st_uid) {
            return Some(Flaw::Owner);
        }
        (stat.st_mode & OTHERS_WRITE != 0).then_some(Flaw::Mode)
    }

    /// Checks an open file or directory, whatever way led to it.
    ///
    /// # Errors
    /// See [`Untrusted`].
    pub fn check(&self, fd: impl AsFd) -> Result<(), Untrusted> {
        if self.is_anybody() {
            return Ok(());
        }
        let fd = fd.as_fd();
        let path = || {
            let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
            std::fs::read_link(link).unwrap_or_default()
        };
        let stat = fstat(fd).map_err(|error| failed(&path(), error))?;
        match self.flaw(&stat) {
            None => Ok(()),
            Some(flaw) => Err(writable(path(), flaw, &stat)),
        }
    }

    /// Checks an open file or directory, and the whole way that this path leads to it.
    ///
    /// # Errors
    /// See [`Untrusted`].
    pub fn check_way(&self, fd: impl AsFd, path: &Path) -> Result<(), Untrusted> {
        if self.is_anybody() {
            return Ok(());
        }
        let end = self.walk(path)?;
        let failed = |error| failed(path, error);
        let (found, given) = (fstat(end).map_err(failed)?, fstat(&fd).map_err(failed)?);
        if (found.st_dev, found.st_ino) != (given.st_dev, given.st_ino) {
            return Err(Untrusted::Replaced(path.to_owned()));
        }
        self.check(fd)
    }

    /// Goes a way step by step, and returns its end, which is for the caller to judge.
    fn walk(&self, path: &Path) -> Result<OwnedFd, Untrusted> {
        let path = std::path::absolute(path).map_err(|source| Untrusted::Io {
            path: path.to_owned(),
            source,
        })?;
        let mut left: VecDeque<_> = parts(&path).collect();
        let (mut shown, mut at) = (PathBuf::from("/"), open(CWD, Path::new("/"), true)?);
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            let stat = fstat(&at).map_err(|error| failed(&shown, error))?;
            self.may_pass(&shown, &stat)?;
            let is_up = part == "..";
            let object = shown.join(&part);
            let next = open(&at, part.as_ref(), false).map_err(|error| named(error, &object))?;
            let stat = fstat(&next).map_err(|error| failed(&object, error))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                at = next;
                shown = match is_up {
                    true => shown.parent().unwrap_or(&shown).to_owned(),
                    false => object,
                };
                continue;
            }
            links += 1;
            if links > LINKS {
                return Err(failed(&object, Errno::LOOP));
            }
            // The kernel's own links lead to objects, whatever names they show.
            if fstatfs(&next).is_ok_and(|it| it.f_type == PROC_SUPER_MAGIC) {
                at = open(&at, part.as_ref(), true).map_err(|error| named(error, &object))?;
                shown = object;
                continue;
            }
            self.check_link(&object, &stat)?;
            let target = readlinkat(&next, "", Vec::new());
            let target = target.map_err(|error| failed(&object, error))?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                (shown, at) = (PathBuf::from("/"), open(CWD, Path::new("/"), true)?);
            }
            for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(part);
            }
        }
        Ok(at)
    }

    /// Checks a directory that is on the way to something.
    fn may_pass(&self, path: &Path, stat: &Stat) -> Result<(), Untrusted> {
        let is_sticky = Mode::from_raw_mode(stat.st_mode).contains(Mode::SVTX);
        match self.flaw(stat) {
            None => Ok(()),
            // What is next belongs to somebody who is believed, and only they can replace it.
            Some(Flaw::Mode) if is_sticky => Ok(()),
            Some(flaw) => Err(writable(path.to_owned(), flaw, stat)),
        }
    }

    /// Checks a symbolic link: its mode says nothing.
    fn check_link(&self, path: &Path, stat: &Stat) -> Result<(), Untrusted> {
        match self.flaw(stat) {
            Some(Flaw::Owner) => Err(writable(path.to_owned(), Flaw::Owner, stat)),
            _ => Ok(()),
        }
    }
}

/// Opens a step of a way, without rights to its contents.
fn open(at: impl AsFd, part: &Path, follow: bool) -> Result<OwnedFd, Untrusted> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    openat(at, part, flags, Mode::empty()).map_err(|error| failed(part, error))
}

fn failed(path: &Path, error: Errno) -> Untrusted {
    Untrusted::Io {
        path: path.to_owned(),
        source: error.into(),
    }
}

/// The same failure with the whole path.
fn named(error: Untrusted, path: &Path) -> Untrusted {
    match error {
        Untrusted::Io { source, .. } => Untrusted::Io {
            path: path.to_owned(),
            source,
        },
        other => other,
    }
}

fn writable(path: PathBuf, flaw: Flaw, stat: &Stat) -> Untrusted {
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let (user, shown) = (geteuid().as_raw(), shell_quoted(&path));
    let mut command = match (flaw, is_link) {
        (Flaw::Mode, _) => format!("chmod go-w {shown}"),
        (Flaw::Owner, true) => format!("chown -h {user} {shown}"),
        (Flaw::Owner, false) => format!("chown {user} {shown}"),
    };
    // Both at once, or the next check would only find the next flaw.
    if flaw == Flaw::Owner && !is_link && stat.st_mode & OTHERS_WRITE != 0 {
        command += &format!(" && chmod go-w {shown}");
    }
    Untrusted::Writable {
        path,
        flaw,
        owner: stat.st_uid,
        mode: stat.st_mode & 0o7777,
        command,
    }
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// A path as a shell takes it.
pub fn shell_quoted(path: &Path) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(byte);
    if path.as_os_str().as_bytes().iter().all(is_plain) {
        return path.display().to_string();
    }
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
