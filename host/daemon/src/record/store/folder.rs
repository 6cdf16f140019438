//! A directory of the store, held open. Its files are accessed through its descriptor, even if its path
//! later names another directory.
//!
//! Invariants: only root and the host's user may write in it; only regular files are opened, and never
//! through a symbolic link.
//!
//! Absent on purpose: the meaning of the files.

use std::{
    fs::{DirBuilder, File},
    io::{self, Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use hotmerge_meta::trust::{Flaw, Trust, shell_quoted};
use rustix::{
    fs::{
        Access, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat, accessat, flock,
        fstat, fstatvfs, fsync, mkdirat, openat, renameat, statat, statvfs, unlinkat,
    },
    io::Errno,
    process::geteuid,
};

/// Prefix of the names of incomplete files.
const TEMPORARY: &str = ".new-";

/// How often a lock is tried before it counts as held by another host: for one second in total.
const ATTEMPTS: u32 = 200;

const ATTEMPT_PAUSE: Duration = Duration::from_millis(5);

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A step failed.
    #[error("failed to {step} `{}`: {source}", .path.display())]
    Io {
        /// The step.
        step: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A newer host has written the record that this one would replace.
    #[error(
        "`{}` was written by a newer hotmerge (format {format}, this one knows {newest}) and is left alone; \
         upgrade hotmerge again, or remove the file to have this one keep versions and choices",
        .path.display()
    )]
    Newer {
        /// The record.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The newest that this host knows.
        newest: u32,
    },
    /// Another host has it open.
    #[error("state directory `{}` belongs to a running host; choose another", .0.display())]
    Held(PathBuf),
    /// Another user could have put there what this host would run.
    #[error(
        "`{}` is not safe in a state directory: {reason} (owner {owner}, mode {mode:04o}); \
         {remedy}, or choose another state directory",
        .path.display()
    )]
    Unsafe {
        /// The offending file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
        /// What to do about it.
        remedy: String,
    },
}

pub(super) fn failed<E: Into<io::Error>>(
    step: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        step,
        path,
        source: source.into(),
    }
}

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

impl Folder {
    /// Opens a directory by its path, or creates it for its owner alone.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(path);
        // Anything else in its place is refused below.
        if path.symlink_metadata().is_err() {
            made.map_err(failed("make", path))?;
        }
        Self::at(CWD, path.as_os_str(), path)
    }

    /// Opens or creates a directory in this one.
    pub(super) fn sub(&self, name: &str) -> Result<Self, StoreError> {
        let path = self.path.join(name);
        match mkdirat(&self.fd, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => Self::at(&self.fd, name, &path),
            Err(error) => Err(failed("make", &path)(error)),
        }
    }

    fn at(
        parent: impl std::os::fd::AsFd,
        name: impl rustix::path::Arg + Copy,
        path: &Path,
    ) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&parent, name, flags, Mode::empty()) {
            Ok(fd) => {
                let stat = fstat(&fd).map_err(failed("examine", path))?;
                check(path, &stat, FileType::Directory)?;
                Ok(Self {
                    path: path.to_owned(),
                    fd,
                })
            }
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed("examine", path))?;
                Err(wrong_kind(path, &stat, FileType::Directory))
            }
            Err(error) => Err(failed("open", path)(error)),
        }
    }

    /// Its path when it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of everything in it.
    pub(super) fn names(&self) -> Result<Vec<String>, StoreError> {
        let failed = |error: Errno| failed("list", &self.path)(error);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match entry.file_name().to_str() {
                Ok("." | "..") => {}
                Ok(name) => names.push(name.to_owned()),
                // The store's own files have other names.
                Err(_) => drop(unlinkat(&self.fd, entry.file_name(), AtFlags::empty())),
            }
        }
        Ok(names)
    }

    /// Opens or creates a file and locks it; its contents stay.
    ///
    /// It retries for a while before another host counts as running: a process that a killed host was about
    /// to start keeps that host's descriptors until it runs its own program.
    pub(super) fn lock_file(&self, name: &str) -> Result<File, StoreError> {
        let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE)?;
        for _ in 0..ATTEMPTS {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::WOULDBLOCK) => thread::sleep(ATTEMPT_PAUSE),
                Err(errno) => return Err(failed("lock", &self.path.join(name))(errno)),
            }
        }
        Err(StoreError::Held(self.path.clone()))
    }

    /// A file's bytes, if no other user could have written them.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let mut file = self.open_file(name, OFlags::RDONLY)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(failed("read", &self.path.join(name)))?;
        Ok(bytes)
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<File, StoreError> {
        let path = self.path.join(name);
        // Without NONBLOCK, opening a FIFO would block.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(&self.fd, name, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => {
                let stat = fstat(&fd).map_err(failed("examine", &path))?;
                check(&path, &stat, FileType::RegularFile)?;
                Ok(fd.into())
            }
            // A link, a directory, a socket or a device.
            Err(error @ (Errno::LOOP | Errno::ISDIR | Errno::NXIO)) => {
                match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => Err(wrong_kind(&path, &stat, FileType::RegularFile)),
                    Err(_) => Err(failed("open", &path)(error)),
                }
            }
            Err(error) => Err(failed("open", &path)(error)),
        }
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        let stat = statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    }

    /// Writes a file under another name and renames it, so that the old or the new one exists at any moment.
    /// It removes an incomplete file.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = format!("{TEMPORARY}{name}");
        let write = || -> io::Result<()> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            // A leftover may be another user's link.
            let _ = unlinkat(&self.fd, &*temporary, AtFlags::empty());
            let mode = Mode::from_raw_mode(0o600);
            let mut file = File::from(openat(&self.fd, &*temporary, flags, mode)?);
            file.write_all(bytes)?;
            file.sync_all()?;
            renameat(&self.fd, &*temporary, &self.fd, name)?;
            Ok(fsync(&self.fd)?)
        };
        write().map_err(|error| {
            // On a full disk it would take the space of the next attempt.
            let _ = unlinkat(&self.fd, &*temporary, AtFlags::empty());
            failed("write", &self.path.join(name))(error)
        })
    }

    /// Writes a file and removes it; returns the number of free bytes.
    pub(super) fn try_writing(&self) -> Result<u64, StoreError> {
        let name = format!("check-{}", std::process::id());
        self.write(&name, b"\n")?;
        self.remove(&name)?;
        let free = fstatvfs(&self.fd).map_err(failed("examine", &self.path))?;
        Ok(free.f_bavail.saturating_mul(free.f_frsize))
    }

    /// Removes a file, if it exists.
    pub(super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed("remove", &self.path.join(name))(error)),
        }
    }
}

/// Checks whether a missing directory could be created; returns the number of free bytes.
pub(super) fn try_making(path: &Path) -> Result<u64, StoreError> {
    let is_there =
        |path: &&Path| !matches!(statat(CWD, *path, AtFlags::empty()), Err(Errno::NOENT));
    let mut above = path.ancestors().skip(1).map(|above| match above {
        above if above.as_os_str().is_empty() => Path::new("."),
        above => above,
    });
    let above = above.find(is_there).unwrap_or(Path::new("/"));
    if !above.is_dir() {
        return Err(failed("make", path)(Errno::NOTDIR));
    }
    accessat(
        CWD,
        above,
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .map_err(failed("make", path))?;
    let free = statvfs(above).map_err(failed("examine", above))?;
    Ok(free.f_bavail.saturating_mul(free.f_frsize))
}

fn check(path: &Path, stat: &Stat, wanted: FileType) -> Result<(), StoreError> {
    if FileType::from_raw_mode(stat.st_mode) != wanted {
        return Err(wrong_kind(path, stat, wanted));
    }
    let shown = shell_quoted(path);
    let Some(flaw) = Trust::own().flaw(stat) else {
        return Ok(());
    };
    let remedy = match flaw {
        Flaw::Mode => format!("run `chmod go-w {shown}`"),
        Flaw::Owner if wanted == FileType::Directory => format!(
            "run `chown -R {} {shown}` if all that is in it is yours",
            geteuid().as_raw()
        ),
        Flaw::Owner => format!("run `rm {shown}`"),
    };
    Err(bad(path, stat, &flaw.to_string(), remedy))
}

fn wrong_kind(path: &Path, stat: &Stat, wanted: FileType) -> StoreError {
    let reason = match (FileType::from_raw_mode(stat.st_mode), wanted) {
        (FileType::Symlink, _) => "it is a symbolic link",
        (_, FileType::Directory) => "it is not a directory",
        _ => "it is not a regular file",
    };
    let flag = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => "-r ",
        _ => "",
    };
    bad(
        path,
        stat,
        reason,
        format!("run `rm {flag}{}`", shell_quoted(path)),
    )
}

fn bad(path: &Path, stat: &Stat, reason: &str, remedy: String) -> StoreError {
    StoreError::Unsafe {
        path: path.to_owned(),
        reason: reason.to_owned(),
        owner: stat.st_uid,
        mode: stat.st_mode & 0o7777,
        remedy,
    }
}
