//! Reads a file that others may be changing, or that may be malicious.
//!
//! A file counts only if it is a regular one, lies in the directory itself (no symlink on
//! the way), is not larger than asked for, and did not change while it was read.
//!
//! Absent on purpose: whose files are believed, which the caller says.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    buffer::spare_capacity,
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

use crate::{Trust, Untrusted};

/// Number of attempts for a file that changes during the read.
const ATTEMPTS: u32 = 3;

/// Distinguishes two states of a file without reading it.
///
/// Equal stamps do not prove equal contents: inodes are used again, and the clock behind the
/// times has a grain (see [`FileStamp::is_fresh`]). A hash decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileStamp {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last write in nanoseconds since 1970; users can set it.
    pub mtime_ns: i64,
    /// Time of the last change of any kind in nanoseconds since 1970.
    pub ctime_ns: i64,
}

impl FileStamp {
    // The fields of `stat` have other widths on other machines.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    fn of(stat: &Stat) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            size: stat.st_size as u64,
            mtime_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }

    /// Whether the last change is so recent (or in the future) that another one could leave
    /// the very same stamp. The kernel's clock for files moves in steps of up to 10 ms; the
    /// limit here is ten of them.
    pub fn is_fresh(&self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.ctime_ns).unwrap_or_default();
        let age = now.duration_since(UNIX_EPOCH + Duration::from_nanos(changed));
        age.map_or(true, |age| age < Duration::from_millis(100))
    }
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A name with a `/`, or `.` or `..`.
    #[error("`{}` is not a plain file name", .0.display())]
    NotPlain(PathBuf),
    /// The file does not exist.
    #[error("`{}` does not exist", .0.display())]
    Missing(PathBuf),
    /// The process may not read it.
    #[error("`{}` may not be read by this user; check its owner and mode", .0.display())]
    Denied(PathBuf),
    /// Anything but a regular file.
    #[error("`{}` is {kind}, not a regular file", .name.display())]
    NotRegular {
        /// Its name.
        name: PathBuf,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// Larger than the caller takes.
    #[error("`{}` has {size} bytes; at most {limit} are accepted", .name.display())]
    TooLarge {
        /// Its name.
        name: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The caller's limit in bytes.
        limit: u64,
    },
    /// It changed during each of several attempts.
    #[error("`{}` keeps changing while it is read", .0.display())]
    Changing(PathBuf),
    /// Somebody else could have written it.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// Anything else.
    #[error("`{}` cannot be read: {source}", .name.display())]
    Io {
        /// Its name.
        name: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl ReadError {
    pub(crate) fn from_open(name: &Path, error: Errno) -> Self {
        let name = name.to_owned();
        match error {
            Errno::NOENT => Self::Missing(name),
            Errno::ACCESS | Errno::PERM => Self::Denied(name),
            Errno::LOOP => Self::NotRegular {
                name,
                kind: "a symlink",
            },
            Errno::NXIO => Self::NotRegular {
                name,
                kind: "a socket or a device",
            },
            Errno::NOTDIR => Self::Io {
                name,
                source: io::Error::other("not a directory"),
            },
            error => Self::Io {
                name,
                source: error.into(),
            },
        }
    }
}

/// Reads the regular file `name` of the directory `dir`, at most `limit_bytes` of it.
///
/// The stamp is that of the bytes: it was the same before and after the read.
///
/// # Errors
/// See [`ReadError`].
pub fn read_regular(
    dir: impl AsFd,
    name: impl AsRef<Path>,
    limit_bytes: u64,
) -> Result<(Vec<u8>, FileStamp), ReadError> {
    read_trusted(dir, name, limit_bytes, &Trust::anybody())
}

/// As [`read_regular`], but only what nobody else could have written.
///
/// # Errors
/// See [`ReadError`].
pub fn read_trusted(
    dir: impl AsFd,
    name: impl AsRef<Path>,
    limit_bytes: u64,
    trust: &Trust,
) -> Result<(Vec<u8>, FileStamp), ReadError> {
    let whole = |_: &[u8], size| Ok(size);
    read_part(dir.as_fd(), name.as_ref(), limit_bytes, 0, trust, whole)
}

/// Reads the first bytes of a file: `extent` says how many are wanted when it has seen the
/// first `head` bytes and the size of the file.
pub(crate) fn read_part<E: From<ReadError>>(
    dir: BorrowedFd<'_>,
    name: &Path,
    limit: u64,
    head: usize,
    trust: &Trust,
    extent: impl Fn(&[u8], u64) -> Result<u64, E>,
) -> Result<(Vec<u8>, FileStamp), E> {
    check_plain(name)?;
    for _ in 0..ATTEMPTS {
        let (file, before) = open_regular(dir, name)?;
        trust.check(&file).map_err(ReadError::from)?;
        let bytes = read_once(&file, name, before.size, limit, head, &extent);
        let after = rustix::fs::fstat(&file).map_err(|error| ReadError::from_open(name, error))?;
        // What was read while it changed is neither right nor wrong.
        if before == FileStamp::of(&after)
            && let Some(bytes) = bytes?
        {
            return Ok((bytes, before));
        }
    }
    Err(ReadError::Changing(name.to_owned()).into())
}

/// The stamp of `name` in `dir`, without following a symlink; `None` if there is nothing.
///
/// # Errors
/// What the system says.
pub fn stamp(dir: impl AsFd, name: impl AsRef<Path>) -> io::Result<Option<FileStamp>> {
    match rustix::fs::statat(dir, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileStamp::of(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check_plain(name: &Path) -> Result<(), ReadError> {
    let mut components = name.components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) if only == name.as_os_str() => Ok(()),
        _ => Err(ReadError::NotPlain(name.to_owned())),
    }
}

fn open_regular(dir: BorrowedFd<'_>, name: &Path) -> Result<(OwnedFd, FileStamp), ReadError> {
    let failed = |error: Errno| ReadError::from_open(name, error);
    // Opening a device may have side effects, so check first.
    let seen = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    check_kind(name, &seen)?;
    let file = open(dir, name).map_err(failed)?;
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    check_kind(name, &stat)?;
    Ok((file, FileStamp::of(&stat)))
}

/// `None` if the file ends before its size.
fn read_once<E: From<ReadError>>(
    file: &OwnedFd,
    name: &Path,
    size: u64,
    limit: u64,
    head: usize,
    extent: impl Fn(&[u8], u64) -> Result<u64, E>,
) -> Result<Option<Vec<u8>>, E> {
    let failed = |error: Errno| ReadError::from_open(name, error);
    let mut bytes = Vec::new();
    if !fill(file, &mut bytes, size.min(head as u64)).map_err(failed)? {
        return Ok(None);
    }
    let wanted = extent(&bytes, size)?;
    if wanted > limit {
        return Err(ReadError::TooLarge {
            name: name.to_owned(),
            size: wanted,
            limit,
        }
        .into());
    }
    let whole = fill(file, &mut bytes, wanted).map_err(failed)?;
    Ok(whole.then_some(bytes))
}

fn check_kind(name: &Path, stat: &Stat) -> Result<(), ReadError> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "a directory",
        FileType::Symlink => "a symlink",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something unknown",
    };
    Err(ReadError::NotRegular {
        name: name.to_owned(),
        kind,
    })
}

fn open(dir: BorrowedFd<'_>, name: &Path) -> Result<OwnedFd, Errno> {
    // A FIFO would otherwise wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        // Older kernels and some sandboxes have no openat2. The name is one component, so
        // NOFOLLOW alone says the same.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {
            rustix::fs::openat(dir, name, flags, Mode::empty())
        }
        other => other,
    }
}

/// Reads on until there are `len` bytes in all; false if the file has fewer.
fn fill(file: &OwnedFd, bytes: &mut Vec<u8>, len: u64) -> Result<bool, Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::FBIG)?;
    let more = len.saturating_sub(bytes.len());
    bytes.try_reserve_exact(more).map_err(|_| Errno::NOMEM)?;
    while bytes.len() < len {
        match rustix::io::read(file, spare_capacity(bytes)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    // The allocator may have given, and the read filled, more room than asked for.
    bytes.truncate(len);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, fs};

    use super::*;

    fn change_while_reading(times: u32) -> Result<(Vec<u8>, u32), ReadError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "0").unwrap();
        let seen = Cell::new(0);
        let grow = |_: &[u8], size| {
            seen.set(seen.get() + 1);
            if seen.get() <= times {
                fs::write(&path, vec![b'x'; seen.get() as usize + 1]).unwrap();
            }
            Ok::<_, ReadError>(size)
        };
        let fd = fs::File::open(dir.path()).unwrap();
        let (bytes, stamp) = read_part(
            fd.as_fd(),
            Path::new("file"),
            100,
            1,
            &Trust::anybody(),
            grow,
        )?;
        assert_eq!(stamp.size, bytes.len() as u64);
        Ok((bytes, seen.get()))
    }

    #[test]
    fn a_file_that_changes_once_is_read_again() {
        assert_eq!(change_while_reading(1).unwrap(), (b"xx".to_vec(), 2));
    }

    #[test]
    fn a_file_that_keeps_changing_is_an_error() {
        let error = change_while_reading(u32::MAX).unwrap_err();
        assert_eq!(error.to_string(), "`file` keeps changing while it is read");
    }

    #[test]
    fn a_file_that_shrinks_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "0123456789").unwrap();
        let shrink = |_: &[u8], size| {
            if size == 10 {
                fs::write(&path, "01234").unwrap();
            }
            Ok::<_, ReadError>(size)
        };
        let fd = fs::File::open(dir.path()).unwrap();
        let (bytes, _) = read_part(
            fd.as_fd(),
            Path::new("file"),
            100,
            0,
            &Trust::anybody(),
            shrink,
        )
        .unwrap();
        assert_eq!(bytes, b"01234");
    }

    #[test]
    fn a_swapped_in_special_file_is_never_opened() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        let fd = fs::File::open(dir.path()).unwrap();
        assert!(open(fd.as_fd(), Path::new("file")).is_ok());
        assert_eq!(
            open(fd.as_fd(), Path::new("link")).unwrap_err(),
            Errno::LOOP
        );
    }
}
