//! How a worker ended, as the kernel reports it.

use std::{
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::process::ExitStatusExt as _,
    },
    process::ExitStatus,
    time::Duration,
};

/// The kernel's account of a worker that has ended. A plugin cannot influence it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// By itself, or by which signal.
    pub status: ExitStatus,
    /// The processor time that all its threads have used.
    pub cpu: Duration,
}

/// Takes the account of a child that has ended, once; waits for its end if `wait`. `None` if it
/// runs.
///
/// # Errors
/// What the system says, if the process is not a child or was reaped before.
pub fn reap(pidfd: BorrowedFd<'_>, wait: bool) -> io::Result<Option<Ended>> {
    let mut options = libc::WEXITED;
    if !wait {
        options |= libc::WNOHANG;
    }
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: both are valid for the call, and valid when zeroed. The kernel's own call: the
        // library's does not hand on what the process has used.
        let (result, info, usage) = unsafe {
            let result = libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                pidfd.as_raw_fd(),
                info.as_mut_ptr(),
                options,
                usage.as_mut_ptr(),
            );
            (result, info.assume_init(), usage.assume_init())
        };
        if result == 0 {
            return Ok(ended(&info, &usage));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn ended(info: &libc::siginfo_t, usage: &libc::rusage) -> Option<Ended> {
    // SAFETY: the call fills these in for a child that has ended, and leaves zeroes otherwise.
    let (pid, code) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return None;
    }
    // What `wait` has in one number.
    let status = match info.si_code {
        libc::CLD_EXITED => (code & 0xff) << 8,
        _ => code,
    };
    Some(Ended {
        status: ExitStatus::from_raw(status),
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
    })
}

fn time(time: libc::timeval) -> Duration {
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_micros(part(time.tv_usec))
}

#[cfg(test)]
mod tests {
    use std::{
        os::fd::{AsFd as _, OwnedFd},
        process::{Child, Command, Stdio},
    };

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    fn pidfd(child: &Child) -> OwnedFd {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        pidfd_open(pid, PidfdFlags::empty()).unwrap()
    }

    /// What becomes of a shell that does this.
    fn ran(script: &str) -> Ended {
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pidfd = pidfd(&child);
        let ended = reap(pidfd.as_fd(), true).unwrap().unwrap();
        child.wait().expect_err("there is nothing left to take");
        ended
    }

    #[test]
    fn a_childs_end_and_usage_are_reported() {
        let exited = ran("exit 7");
        assert_eq!(exited.status.code(), Some(7));
        assert!(exited.cpu < Duration::from_secs(1), "{exited:?}");
        assert_eq!(ran("kill -9 $$").status.signal(), Some(libc::SIGKILL));
        let spent = ran("ulimit -t 1; while :; do :; done");
        assert_eq!(spent.status.signal(), Some(libc::SIGKILL));
        // The kernel judges by sampled ticks, which are off on a busy machine.
        assert!(spent.cpu >= Duration::from_millis(600), "{spent:?}");
    }

    #[test]
    fn a_child_that_runs_has_not_ended() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read _"]).stdin(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let pidfd = pidfd(&child);
        assert_eq!(reap(pidfd.as_fd(), false).unwrap(), None);
        drop(child.stdin.take());
        assert!(reap(pidfd.as_fd(), true).unwrap().is_some());
        child.wait().expect_err("there is nothing left to take");
    }
}
