//! Where others find this host: a pid file and a control socket, created again if somebody
//! removes them.
//!
//! Invariant: only the host that holds the lock of the runtime directory creates anything in it. Removed files are
//! noticed at once where the kernel reports it, and otherwise at the host's next scan.
//!
//! Absent on purpose: how a place is locked, and how clients are answered.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::Context as _;
use hotmerge_door::Server;
use hotmerge_meta::{RuntimeDir, runtime::PidFile};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{CreateFlags, WatchFlags, add_watch, init},
    io::{Errno, read},
};

/// A clearing is over when nothing goes for this long: what is created again in the middle of
/// one would keep the directory from going.
const QUIET: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Waits for ongoing removals at most this many times [`QUIET`].
const MOST_PAUSES: u32 = 20;

/// The place of a host that runs.
#[derive(Debug)]
pub(crate) struct Place {
    dir: RuntimeDir,
    pid_file: PidFile,
    pub(crate) server: Server,
    /// Tells that something in the directory goes; nothing if the system has none left.
    goings: Option<Arc<OwnedFd>>,
    /// Why nobody finds it, as it was logged.
    trouble: Mutex<String>,
}

impl Place {
    pub(crate) fn new(dir: RuntimeDir, pid_file: PidFile, server: Server) -> Arc<Self> {
        let place = Arc::new(Self {
            dir,
            pid_file,
            server,
            goings: init(CreateFlags::CLOEXEC).ok().map(Arc::new),
            trouble: Mutex::default(),
        });
        if let Err(error) = place.notice_clearings() {
            tracing::warn!(target: "hotmerge::host",
                "the host notices only at its next scan if somebody clears the runtime directory: {error:#}");
        }
        place
    }

    /// Creates again what somebody has removed.
    pub(crate) fn keep(&self) {
        let pid_file = self.pid_file.keep().context("the pid file is gone");
        // Only the host that holds the lock may create a socket there.
        let kept = pid_file.and_then(|pid_file| {
            let socket = self.server.keep().context("the control socket is gone")?;
            Ok(pid_file || socket)
        });
        // It may be another directory by now; the same one is watched once.
        let _ = self.watch();
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match kept {
            Ok(false) => {}
            Ok(true) => {
                trouble.clear();
                tracing::warn!(target: "hotmerge::host", "somebody cleared the runtime directory; the host created its files again");
            }
            Err(error) => {
                let error = format!("{error:#}");
                if *trouble != error {
                    tracing::error!(target: "hotmerge::host", "clients can no longer find this host: {error}");
                    *trouble = error;
                }
            }
        }
    }

    fn watch(&self) -> Result<&Arc<OwnedFd>, Errno> {
        let goings = self.goings.as_ref().ok_or(Errno::MFILE)?;
        let what = WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        add_watch(goings, self.dir.path(), what)?;
        Ok(goings)
    }

    fn notice_clearings(self: &Arc<Self>) -> io::Result<()> {
        let goings = Arc::clone(self.watch()?);
        // The place is gone before this thread is.
        let place = Arc::downgrade(self);
        let notice = move || {
            while wait_for_a_clearing(&goings).is_ok()
                && let Some(place) = place.upgrade()
            {
                place.keep();
            }
        };
        let thread = thread::Builder::new().name("place".into());
        thread.spawn(notice).map(drop)
    }
}

/// Waits until something goes, and then until nothing does. What goes makes no difference.
fn wait_for_a_clearing(goings: &OwnedFd) -> Result<(), Errno> {
    let mut events = [0; 4096];
    for _ in 0..MOST_PAUSES {
        match read(goings, &mut events) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let mut more = [PollFd::new(goings, PollFlags::IN)];
        if poll(&mut more, Some(&QUIET)) == Ok(0) {
            break;
        }
    }
    Ok(())
}
