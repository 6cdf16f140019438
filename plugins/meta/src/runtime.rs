//! Finds a running host and signals it to rescan.
//!
//! The host holds an exclusive `flock` on its pid file for as long as it lives (and
//! more, in `place`, in case somebody clears that away), so no crash can leave a wrong answer to "is one running". The pid in the file is only a hint:
//! before sending a signal, the sender pins the process with a pidfd, compares the start time
//! that the host wrote next to its pid, and checks the lock again. A stale file or a reused
//! pid can therefore never cause a signal. (The lock alone is not enough: between a new
//! host's lock and its first write the file still holds the text of a crashed host.)
//!
//! Absent on purpose: handlers and what a signal means (that is the host's).

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt as _, FileExt as _},
    },
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    fs::{CWD, FileType, FlockOperation, Mode, OFlags},
    io::Errno,
    process::{Pid, PidfdFlags, Signal},
};

mod place;

use crate::trust::{Flaw, Trust};
use place::{PlaceName, Taken, lock_dir};

/// The directory in which a host keeps its pid file and its control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// The environment variable that names it; command-line options take precedence.
    pub const VARIABLE: &str = "HOTMERGE_RUNTIME_DIR";

    /// The operator's directory, or else [`RuntimeDir::default_path`].
    pub fn chosen(path: Option<impl Into<PathBuf>>) -> Self {
        path.map_or_else(Self::default_path, Self::new)
    }

    /// A directory of the operator's choice.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The default runtime directory: `/run/hotmerge` for root, otherwise
    /// `$XDG_RUNTIME_DIR/hotmerge`, otherwise `/tmp/hotmerge-UID`.
    pub fn default_path() -> Self {
        let uid = rustix::process::geteuid();
        Self::default_for(
            uid.as_raw(),
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
        )
    }

    fn default_for(uid: u32, xdg: Option<PathBuf>) -> Self {
        match xdg {
            _ if uid == 0 => Self::new("/run/hotmerge"),
            // The XDG specification says to ignore a relative path.
            Some(dir) if dir.is_absolute() => Self(dir.join("hotmerge")),
            _ => Self(format!("/tmp/hotmerge-{uid}").into()),
        }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The socket of the [`control`](crate::control) protocol.
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// The file that a host locks.
    pub fn pid_file(&self) -> PathBuf {
        self.0.join("hotmerge.pid")
    }

    /// Makes the directory if it is not there, for its owner alone, and checks that nobody else
    /// can put files into it. A service manager that makes it may let a group in.
    ///
    /// # Errors
    /// [`RuntimeError::Unsafe`] if somebody else could stand in for the host.
    pub fn create(&self) -> Result<(), RuntimeError> {
        let failed = |step| {
            let path = self.0.clone();
            move |source| RuntimeError::Io { step, path, source }
        };
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(failed("create"))?;
        // Not through a symlink: in /tmp anybody could have put one there.
        let dir = rustix::fs::lstat(&self.0)
            .map_err(io::Error::from)
            .map_err(failed("look at"))?;
        let is_dir = FileType::from_raw_mode(dir.st_mode).is_dir();
        let reason = match Trust::own().flaw(&dir) {
            _ if !is_dir => "it is not a directory".to_owned(),
            None => return Ok(()),
            Some(Flaw::Owner) => format!("it belongs to user {}", dir.st_uid),
            Some(Flaw::Mode) => "others may write in it".to_owned(),
        };
        Err(RuntimeError::Unsafe {
            dir: self.0.clone(),
            reason,
        })
    }
}

/// Why a pid file could not be taken or a host not be signalled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// Another host holds the lock.
    #[error(
        "a host is already running in `{}`{}; stop it or choose another runtime directory",
        .dir.display(),
        .pid.map(|pid| format!(" (process {})", pid.as_raw_nonzero())).unwrap_or_default()
    )]
    Held {
        /// The runtime directory.
        dir: PathBuf,
        /// The holder, if it has already said.
        pid: Option<Pid>,
    },
    /// Another user could put a socket or a pid file there.
    #[error(
        "`{}` is not safe as a runtime directory: {reason}; choose another or remove it",
        .dir.display()
    )]
    Unsafe {
        /// The runtime directory.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The process may not open the file or signal the host.
    #[error("not permitted to {step} `{}`; run as the user of the host", .path.display())]
    Denied {
        /// What was being done.
        step: &'static str,
        /// With which file.
        path: PathBuf,
    },
    /// The process that the pid file names is not the one that wrote it.
    #[error(
        "`{}` names process {}, which is not the host that holds it; nothing was signalled",
        .path.display(),
        .pid.as_raw_nonzero()
    )]
    Stranger {
        /// The pid file.
        path: PathBuf,
        /// What it names.
        pid: Pid,
    },
    /// The kernel does not say when this process started.
    #[error("failed to read the start time of this process: {source}; mount `/proc`")]
    NoProc {
        /// What the system says.
        source: io::Error,
    },
    /// Anything else.
    #[error("failed to {step} `{}`: {source}", .path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

fn error(step: &'static str, path: &Path, error: Errno) -> RuntimeError {
    let path = path.to_owned();
    match error {
        Errno::ACCESS | Errno::PERM => RuntimeError::Denied { step, path },
        error => RuntimeError::Io {
            step,
            path,
            source: error.into(),
        },
    }
}

/// A process that checks whether a host runs holds a shared lock for some microseconds, so that a busy lock
/// is believed only when it stays busy.
const ATTEMPTS: u32 = 40;

const ATTEMPT_PAUSE: Duration = Duration::from_millis(5);

/// The lock of a running host. Dropped, it empties the file and lets go; the file stays,
/// because unlinking a locked file would let two hosts lock two files of one name.
///
/// It outlasts the file and the directory: see `place`. The locks belong to open files, which a
/// child shares until it calls `exec`: a child that never does keeps them when its parent dies.
#[derive(Debug)]
pub struct PidFile {
    dir: RuntimeDir,
    held: Mutex<Held>,
    name: PlaceName,
}

#[derive(Debug)]
struct Held {
    file: File,
    dir: OwnedFd,
    /// Whether it says who runs.
    is_written: bool,
}

impl PidFile {
    /// Takes the lock. The file is left empty: it says who runs only after
    /// [`PidFile::write_pid`], because a signal before the handler is installed kills.
    ///
    /// # Errors
    /// [`RuntimeError::Held`] if a host runs here already.
    pub fn acquire(dir: &RuntimeDir) -> Result<Self, RuntimeError> {
        let mut holder = None;
        for _ in 0..ATTEMPTS {
            match Self::try_acquire(dir, holder)? {
                Ok(lock) => return Ok(lock),
                Err(taken) => holder = Some(taken).filter(|it| it.0.is_some()),
            }
            thread::sleep(ATTEMPT_PAUSE);
        }
        let written = File::open(dir.pid_file())
            .ok()
            .and_then(|file| Holder::read(&file))
            .map(|holder| holder.pid);
        Err(RuntimeError::Held {
            dir: dir.path().to_owned(),
            pid: holder.and_then(|it| it.0).or(written),
        })
    }

    fn try_acquire(
        dir: &RuntimeDir,
        holder: Option<Taken>,
    ) -> Result<Result<Self, Taken>, RuntimeError> {
        let name = PlaceName::take(dir.path(), holder).map_err(|source| RuntimeError::Io {
            step: "find the place of",
            path: dir.path().to_owned(),
            source,
        })?;
        let name = match name {
            Ok(name) => name,
            Err(holder) => return Ok(Err(holder)),
        };
        let Some(fd) = lock_runtime_dir(dir)? else {
            return Ok(Err(Taken(None)));
        };
        let Some(file) = lock_file(&dir.pid_file())? else {
            return Ok(Err(Taken(None)));
        };
        Ok(Ok(Self {
            dir: dir.clone(),
            held: Mutex::new(Held {
                file,
                dir: fd,
                is_written: false,
            }),
            name,
        }))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the pid. Call it when the handlers of all signals are installed.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_pid(&self) -> Result<(), RuntimeError> {
        let mut held = self.held();
        held.is_written = true;
        self.write(&held.file)
    }

    fn write(&self, file: &File) -> Result<(), RuntimeError> {
        let pid = rustix::process::getpid();
        let start = start_time(pid).map_err(|source| RuntimeError::NoProc { source })?;
        let text = format!("{}\nstart={start}\n", pid.as_raw_nonzero());
        let written = file.write_all_at(text.as_bytes(), 0);
        written.map_err(|source| RuntimeError::Io {
            step: "write",
            path: self.dir.pid_file(),
            source,
        })
    }

    /// Creates directory and file again if somebody has removed them. Returns whether it had to.
    ///
    /// # Errors
    /// [`RuntimeError::Held`] if another host has taken the place.
    pub fn keep(&self) -> Result<bool, RuntimeError> {
        self.name.answer();
        let mut held = self.held();
        let is_there = is_at(&held.dir, self.dir.path());
        let path = self.dir.pid_file();
        if is_there && is_at(&held.file, &path) {
            return Ok(false);
        }
        let taken = || RuntimeError::Held {
            dir: self.dir.path().to_owned(),
            pid: None,
        };
        self.dir.create()?;
        if !is_there {
            held.dir = lock_runtime_dir(&self.dir)?.ok_or_else(taken)?;
        }
        let file = lock_file(&path)?.ok_or_else(taken)?;
        if held.is_written {
            self.write(&file)?;
        }
        held.file = file;
        Ok(true)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // The lock goes with the descriptor, after this. A file that keeps its text is as
        // harmless as one of a host that crashed.
        let _ = self.held().file.set_len(0);
    }
}

fn lock_runtime_dir(dir: &RuntimeDir) -> Result<Option<OwnedFd>, RuntimeError> {
    lock_dir(dir.path()).map_err(|errno| error("lock", dir.path(), errno))
}

/// Locks the file and empties it; nothing if somebody has it.
fn lock_file(path: &Path) -> Result<Option<File>, RuntimeError> {
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(0o644))
        .map_err(|errno| error("open", path, errno))?;
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(error("lock", path, errno)),
    }
    // Somebody may have removed the file between the two calls.
    if !is_at(&fd, path) {
        return Ok(None);
    }
    rustix::fs::ftruncate(&fd, 0).map_err(|errno| error("empty", path, errno))?;
    Ok(Some(File::from(fd)))
}

/// Whether the open file is still the one of that name.
fn is_at(fd: impl AsFd, path: &Path) -> bool {
    match (rustix::fs::fstat(fd), rustix::fs::stat(path)) {
        (Ok(ours), Ok(theirs)) => (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino),
        _ => false,
    }
}

/// What a host wrote into its pid file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    pid: Pid,
    /// In clock ticks since boot; with the pid it names one process for ever.
    start: u64,
}

impl Holder {
    fn read(fd: impl AsFd) -> Option<Self> {
        // Two short lines; anything longer was not written by a host.
        let mut bytes = [0; 64];
        let len = rustix::io::pread(fd, &mut bytes, 0).ok()?;
        Self::parse(str::from_utf8(&bytes[..len]).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, start) = text.strip_suffix('\n')?.split_once('\n')?;
        Some(Self {
            pid: Pid::from_raw(pid.parse().ok().filter(|pid| *pid > 0)?)?,
            start: start.strip_prefix("start=")?.parse().ok()?,
        })
    }
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
fn start_time(pid: Pid) -> io::Result<u64> {
    let mut text = Vec::new();
    File::open(format!("/proc/{}/stat", pid.as_raw_nonzero()))?.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    // The name in field 2 may hold blanks and parentheses; the last one ends it.
    text.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other("`/proc` does not say when the process started"))
}

/// Whether the owner of a pid file may name this process in it: root any, others their own.
/// Otherwise a host's user could make root signal whatever process it likes.
fn may_name(file: &OwnedFd, pid: Pid) -> io::Result<bool> {
    let owner = rustix::fs::fstat(file)?.st_uid;
    if owner == 0 {
        return Ok(true);
    }
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()))?;
    let real_uid = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|uids| uids.split_ascii_whitespace().next());
    Ok(real_uid == Some(&owner.to_string()))
}

/// A host that runs, pinned: the descriptor can not come to mean another process.
#[derive(Debug)]
pub struct RunningHost {
    /// Its process id.
    pub pid: Pid,
    pidfd: OwnedFd,
}

impl AsFd for RunningHost {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// What is known about the host of a runtime directory.
#[derive(Debug)]
pub enum HostState {
    /// The lock is free.
    NotRunning,
    /// A host holds the lock but has not written its pid: its handlers are not installed yet.
    Starting,
    /// This one.
    Running(RunningHost),
}

/// The result of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// The host got it.
    Sent(Pid),
    /// Nobody runs.
    NotRunning,
    /// A host is starting: it will scan the directory anyway.
    Starting,
}

/// Who runs in `dir`.
///
/// # Errors
/// [`RuntimeError::Denied`] if this user may not know, [`RuntimeError::Stranger`] if the pid
/// file and the process table contradict each other.
pub fn host_state(dir: &RuntimeDir) -> Result<HostState, RuntimeError> {
    let path = dir.pid_file();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let fd = match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(HostState::NotRunning),
        Err(errno) => return Err(error("open", &path, errno)),
    };
    if !is_held(&fd, &path)? {
        return Ok(HostState::NotRunning);
    }
    let Some(holder) = Holder::read(&fd) else {
        return Ok(HostState::Starting);
    };
    let pid = holder.pid;
    let stranger = || RuntimeError::Stranger {
        path: path.clone(),
        pid,
    };
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // It ended since, or lives in another pid namespace.
        Err(Errno::SRCH) if !is_held(&fd, &path)? => return Ok(HostState::NotRunning),
        Err(Errno::SRCH) => return Err(stranger()),
        Err(errno) => return Err(error("look up the process of", &path, errno)),
    };
    let is_the_holder = start_time(pid).is_ok_and(|start| start == holder.start)
        && may_name(&fd, pid).is_ok_and(|may| may);
    if !is_held(&fd, &path)? {
        return Ok(HostState::NotRunning);
    }
    if !is_the_holder {
        return Err(stranger());
    }
    Ok(HostState::Running(RunningHost { pid, pidfd }))
}

/// The pid of the host of `dir`, pinned; `None` if nobody runs or one is only starting.
///
/// # Errors
/// As [`host_state`].
pub fn host_pid(dir: &RuntimeDir) -> Result<Option<RunningHost>, RuntimeError> {
    Ok(match host_state(dir)? {
        HostState::Running(host) => Some(host),
        HostState::NotRunning | HostState::Starting => None,
    })
}

/// Sends SIGHUP, the hint to rescan, to the host of `dir`.
///
/// # Errors
/// As [`host_state`]; also if the host belongs to another user.
pub fn send_hup(dir: &RuntimeDir) -> Result<Signalled, RuntimeError> {
    let host = match host_state(dir)? {
        HostState::NotRunning => return Ok(Signalled::NotRunning),
        HostState::Starting => return Ok(Signalled::Starting),
        HostState::Running(host) => host,
    };
    match rustix::process::pidfd_send_signal(&host, Signal::HUP) {
        Ok(()) => Ok(Signalled::Sent(host.pid)),
        Err(Errno::SRCH) => Ok(Signalled::NotRunning),
        Err(errno) => Err(error("signal the host of", &dir.pid_file(), errno)),
    }
}

/// Whether a host holds the lock. A shared lock, so that two who ask do not see each other.
fn is_held(fd: &OwnedFd, path: &Path) -> Result<bool, RuntimeError> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            rustix::fs::flock(fd, FlockOperation::Unlock)
                .map_err(|errno| error("unlock", path, errno))?;
            Ok(false)
        }
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(error("lock", path, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_depends_on_the_user() {
        let xdg = |path: &str| Some(PathBuf::from(path));
        let default = |uid, xdg| RuntimeDir::default_for(uid, xdg).path().to_owned();
        assert_eq!(default(0, xdg("/run/user/0")), Path::new("/run/hotmerge"));
        assert_eq!(
            default(1000, xdg("/run/user/1000")),
            Path::new("/run/user/1000/hotmerge")
        );
        assert_eq!(
            default(1000, xdg("relative")),
            Path::new("/tmp/hotmerge-1000")
        );
        assert_eq!(default(1000, None), Path::new("/tmp/hotmerge-1000"));
    }

    #[test]
    fn a_process_start_time_never_changes() {
        let own = rustix::process::getpid();
        assert_eq!(start_time(own).unwrap(), start_time(own).unwrap());
        assert_ne!(start_time(own).unwrap(), start_time(Pid::INIT).unwrap());
    }
}
