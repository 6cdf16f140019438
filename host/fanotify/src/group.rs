//! A group receives the events of what it marks.

use std::{
    borrow::Borrow,
    fmt, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use libc::{
    AT_EMPTY_PATH, FAN_ATTRIB, FAN_CLASS_NOTIF, FAN_CLOEXEC, FAN_CLOSE_WRITE, FAN_CREATE,
    FAN_DELETE, FAN_DELETE_SELF, FAN_EVENT_ON_CHILD, FAN_MARK_ADD, FAN_MARK_FILESYSTEM,
    FAN_MARK_ONLYDIR, FAN_MODIFY, FAN_MOVE_SELF, FAN_MOVED_FROM, FAN_MOVED_TO, FAN_NONBLOCK,
    FAN_ONDIR, FAN_REPORT_DFID_NAME,
};

/// Everything that changes a directory or a file in it, but for writing. Opening and reading are not
/// here: nobody is woken by those.
const CHANGES: u64 = FAN_CREATE
    | FAN_DELETE
    | FAN_MOVED_FROM
    | FAN_MOVED_TO
    | FAN_DELETE_SELF
    | FAN_MOVE_SELF
    | FAN_CLOSE_WRITE
    | FAN_ATTRIB
    | FAN_ONDIR;

/// Encodes a handle as fanotify does, also where a file system cannot open it again (Linux 6.5).
const AT_HANDLE_FID: libc::c_int = 0x200;

/// The most that the kernel encodes.
const MAX_HANDLE_BYTES: usize = 128;

/// A fanotify group that reports handles of directories and names.
#[derive(Debug)]
pub struct Group(OwnedFd);

impl Group {
    /// A group without marks. Its queue is bounded by `fs.fanotify.max_queued_events`.
    ///
    /// # Errors
    /// `EMFILE` at `fs.fanotify.max_user_groups`, `ENOSYS`, `EINVAL` or `EPERM` where the kernel
    /// offers none.
    pub fn new() -> io::Result<Self> {
        let flags = FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_DFID_NAME;
        let of_events = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE;
        // SAFETY: the call takes two numbers and touches no memory of this process.
        let fd = unsafe { libc::fanotify_init(flags, of_events.cast_unsigned()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Marks the whole file system that a directory is on. Needs CAP_SYS_ADMIN.
    /// It reports a written file when that is closed: somebody always writes to some log
    /// file, which would wake the reader each time. See [`Group::mark_writes`].
    ///
    /// # Errors
    /// `EPERM`; `EXDEV`, `EOPNOTSUPP` or `ENODEV` if the file system cannot be marked so.
    pub fn mark_file_system(&self, dir: impl AsFd) -> io::Result<()> {
        self.mark(FAN_MARK_FILESYSTEM, CHANGES, dir.as_fd())
    }

    /// Marks one directory for writes to the files in it, also before they are closed.
    ///
    /// # Errors
    /// As [`Group::mark_directory`].
    pub fn mark_writes(&self, dir: impl AsFd) -> io::Result<()> {
        self.mark(0, FAN_MODIFY | FAN_EVENT_ON_CHILD, dir.as_fd())
    }

    /// Marks one directory and the files in it.
    ///
    /// # Errors
    /// `ENOSPC` at `fs.fanotify.max_user_marks`; `EOPNOTSUPP` or `ENODEV` if the file system has no
    /// handles.
    pub fn mark_directory(&self, dir: impl AsFd) -> io::Result<()> {
        self.mark(0, CHANGES | FAN_MODIFY | FAN_EVENT_ON_CHILD, dir.as_fd())
    }

    fn mark(&self, kind: libc::c_uint, mask: u64, dir: BorrowedFd<'_>) -> io::Result<()> {
        let flags = FAN_MARK_ADD | FAN_MARK_ONLYDIR | kind;
        // SAFETY: both descriptors are open for the time of the call, and the path is a string
        // that ends in zero and lives for ever.
        let result = unsafe {
            libc::fanotify_mark(
                self.0.as_raw_fd(),
                flags,
                mask,
                dir.as_raw_fd(),
                c".".as_ptr(),
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Reads records, as many whole ones as there is room for, and never waits.
    ///
    /// # Errors
    /// `EAGAIN` if there are none; `EINVAL` if not even one has room.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Names a file or directory within its file system, also after it is gone; numbers of inodes are
/// used again, handles are not.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Handle(Box<[u8]>);

/// As the kernel lays a handle out, with room for the longest one.
#[repr(C)]
struct Room {
    handle: libc::file_handle,
    bytes: [u8; MAX_HANDLE_BYTES],
}

impl Handle {
    /// The handle of an open file or directory.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if its file system has none.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        match Self::encoded(file.as_fd(), AT_HANDLE_FID) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Self::encoded(file.as_fd(), 0)
            }
            result => result,
        }
    }

    fn encoded(file: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<Self> {
        let mut room = Room {
            handle: libc::file_handle {
                handle_bytes: MAX_HANDLE_BYTES as u32,
                handle_type: 0,
                f_handle: [],
            },
            bytes: [0; MAX_HANDLE_BYTES],
        };
        let mut mount = 0;
        // SAFETY: the path is an empty string; `room` and `mount` are writable for the time of
        // the call, and `handle_bytes` says how much room follows the handle.
        let result = unsafe {
            libc::name_to_handle_at(
                file.as_raw_fd(),
                c"".as_ptr(),
                (&raw mut room).cast(),
                &raw mut mount,
                AT_EMPTY_PATH | flags,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let length = room.handle.handle_bytes as usize;
        let bytes = room.bytes.get(..length).ok_or(io::ErrorKind::InvalidData)?;
        let kind = room.handle.handle_type;
        let head = [room.handle.handle_bytes.to_ne_bytes(), kind.to_ne_bytes()].concat();
        Ok(Self([&head, bytes].concat().into()))
    }
}

/// The same bytes that a record has.
impl Borrow<[u8]> for Handle {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle(")?;
        for byte in &self.0 {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests;
