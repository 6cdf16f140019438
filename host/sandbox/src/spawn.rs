//! The host's half: starts the worker program without copying the host's memory.
//!
//! `fork` copies the page tables of the host, which takes tens of milliseconds for a large
//! one. Here the child shares the host's memory until it becomes the worker program, and the
//! calling thread waits meanwhile, as `vfork` has it.

use std::{
    ffi::c_void,
    fs, io,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr,
    sync::atomic::{AtomicI32, Ordering},
    thread,
};

use rustix::{
    io::retry_on_intr,
    pipe::{PipeFlags, pipe_with},
    process::{PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, waitid},
};

use crate::{Cgroup, descriptor, signals::default_ignored};

/// Stack of the child until it becomes another program, in bytes.
const STACK_BYTES: usize = 64 << 10;

/// From where on descriptors are out of the way of those that the worker is to have. No higher: the
/// host may have a low limit.
const ASIDE: RawFd = descriptor::COUNT as RawFd;

/// Whether a worker gets namespaces of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// User, process, mount, IPC, UTS and cgroup namespaces; a network of its own only if
    /// `network` says so.
    Own {
        /// Whether it has a network of its own, with nothing in it.
        network: bool,
    },
    /// None: the kernel does not permit them.
    None,
}

/// As whom a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// As the host's own user, who is 0 inside and has no rights there.
    Own,
    /// As this user and group, who are 1 inside; the host must be root.
    Other(u32),
}

/// A started worker. Its owner must wait for its end.
#[derive(Debug)]
pub struct Spawned {
    /// Refers to this very process, whatever becomes of its number.
    pub pidfd: OwnedFd,
    /// Its number as the host sees it.
    pub pid: i32,
}

/// Why a worker was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The kernel does not make the process.
    #[error("failed to create a process{}: {source}", if *namespaces { " with namespaces of its own" } else { "" })]
    Clone {
        /// Whether namespaces were asked for.
        namespaces: bool,
        /// What the kernel said.
        source: io::Error,
    },
    /// The child could not become the worker program.
    #[error("failed to run the worker program: {0}")]
    Run(io::Error),
    /// The ids of the new user namespace could not be set.
    #[error("failed to set the user of a worker: {0}")]
    Ids(io::Error),
    /// It could not be put into its control group.
    #[error("failed to put a worker into its cgroup: {0}")]
    Cgroup(io::Error),
    /// Pipes or memory.
    #[error("failed to prepare a worker: {0}")]
    Prepare(io::Error),
}

impl SpawnError {
    /// What the system said.
    pub fn system(&self) -> &io::Error {
        match self {
            Self::Clone { source, .. } => source,
            Self::Run(error) | Self::Ids(error) | Self::Cgroup(error) | Self::Prepare(error) => {
                error
            }
        }
    }
}

/// What the child needs. It shares memory with the parent, which waits.
struct Child {
    program: RawFd,
    fds: [RawFd; descriptor::COUNT],
    ready: RawFd,
    go: RawFd,
    /// The host itself: others hold the other end of `go` as well, so that only this reports
    /// its death.
    host: RawFd,
    waits: bool,
    error: i32,
}

/// Starts `program` with `fds` as its descriptors 0, 1, 2, … and nothing else of the host's, in
/// `group` if there is one.
///
/// The worker is killed when the calling **thread** ends: call this on one that outlives it.
///
/// # Errors
/// Nothing is left behind then.
pub fn spawn(
    program: BorrowedFd<'_>,
    fds: [BorrowedFd<'_>; descriptor::COUNT],
    namespaces: Namespaces,
    ids: Ids,
    group: Option<&Cgroup>,
) -> Result<Spawned, SpawnError> {
    let (ready_out, ready_in) = pipe_with(PipeFlags::CLOEXEC).map_err(prepare)?;
    let (go_out, go_in) = pipe_with(PipeFlags::CLOEXEC).map_err(prepare)?;
    let host = pidfd_open(getpid(), PidfdFlags::empty()).map_err(prepare)?;
    let mut child = Child {
        program: program.as_raw_fd(),
        fds: fds.map(|fd| fd.as_raw_fd()),
        ready: ready_in.as_raw_fd(),
        go: go_out.as_raw_fd(),
        host: host.as_raw_fd(),
        waits: namespaces != Namespaces::None || group.is_some(),
        error: 0,
    };
    let pidfd = AtomicI32::new(-1);
    let (result, mapped) = thread::scope(|scope| -> Result<_, SpawnError> {
        // The calling thread sleeps until the child is another program, and the child until its
        // ids are set: a third one sets them.
        let pidfd = &pidfd;
        let map = move || -> Result<(), SpawnError> {
            match retry_on_intr(|| rustix::io::read(&ready_out, &mut [0])) {
                Ok(1) => {
                    let placed = place(pidfd.load(Ordering::SeqCst), namespaces, ids, group);
                    // The child holds an end of its own, so that it would never see a hang-up.
                    rustix::io::write(&go_in, &[u8::from(placed.is_ok())]).map_err(prepare)?;
                    placed
                }
                _ => Ok(()),
            }
        };
        let mapper = thread::Builder::new()
            .spawn_scoped(scope, map)
            .map_err(SpawnError::Prepare)?;
        let result = clone(&mut child, namespaces, pidfd);
        // Without a child nobody else would notify the mapper.
        drop(ready_in);
        Ok((result, mapper.join()))
    })?;
    let (pidfd, pid) = result.map_err(|source| SpawnError::Clone {
        namespaces: namespaces != Namespaces::None,
        source,
    })?;
    let spawned = Spawned { pidfd, pid };
    let failed = match mapped {
        Ok(Err(error)) => Some(error),
        Err(_) => Some(SpawnError::Ids(io::Error::other("a thread panicked"))),
        Ok(Ok(())) if child.error != 0 => {
            Some(SpawnError::Run(io::Error::from_raw_os_error(child.error)))
        }
        Ok(Ok(())) => None,
    };
    match failed {
        None => Ok(spawned),
        Some(error) => {
            // It ends by itself: it was refused, or has reported so.
            let _ = retry_on_intr(|| {
                waitid(WaitId::PidFd(spawned.pidfd.as_fd()), WaitIdOptions::EXITED)
            });
            Err(error)
        }
    }
}

fn prepare(error: rustix::io::Errno) -> SpawnError {
    SpawnError::Prepare(error.into())
}

/// Makes a child that waits what it is to be before it runs.
fn place(
    pidfd: RawFd,
    namespaces: Namespaces,
    ids: Ids,
    group: Option<&Cgroup>,
) -> Result<(), SpawnError> {
    let pid = number(pidfd).map_err(SpawnError::Prepare)?;
    if let Some(group) = group {
        group.take(pid).map_err(SpawnError::Cgroup)?;
    }
    if namespaces == Namespaces::None {
        return Ok(());
    }
    map_ids(pid, ids).map_err(SpawnError::Ids)
}

fn map_ids(pid: i32, ids: Ids) -> io::Result<()> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let write = |name: &str, text: String| fs::write(format!("/proc/{pid}/{name}"), text);
    match ids {
        Ids::Own => {
            write("setgroups", "deny".into())?;
            write("uid_map", format!("0 {uid} 1\n"))?;
            write("gid_map", format!("0 {gid} 1\n"))
        }
        Ids::Other(id) => {
            write("uid_map", format!("0 {uid} 1\n1 {id} 1\n"))?;
            write("gid_map", format!("0 {gid} 1\n1 {id} 1\n"))
        }
    }
}

/// The number of the process that a pidfd refers to.
fn number(pidfd: RawFd) -> io::Result<i32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{pidfd}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .ok_or_else(|| io::Error::other("`/proc` does not say which process was started"))
}

fn clone(
    child: &mut Child,
    namespaces: Namespaces,
    pidfd: &AtomicI32,
) -> io::Result<(OwnedFd, i32)> {
    let mut flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    if let Namespaces::Own { network } = namespaces {
        flags |= libc::CLONE_NEWUSER
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        if network {
            flags |= libc::CLONE_NEWNET;
        }
    }
    let mut stack = vec![0_u128; STACK_BYTES / 16];
    // SAFETY: the signal sets are initialised by the calls that fill them. The child runs
    // `become_worker` on a stack of its own while this thread waits, with all signals blocked
    // so that no handler of the host's runs in it; stack and argument live until it is another
    // program, and it touches no other memory.
    let (result, error) = unsafe {
        let mut all = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let result = libc::clone(
            become_worker,
            stack.as_mut_ptr_range().end.cast(),
            flags,
            ptr::from_mut(child).cast(),
            pidfd.as_ptr(),
        );
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        (result, error)
    };
    if result < 0 {
        return Err(error);
    }
    // SAFETY: the kernel has just put a descriptor there, and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd.load(Ordering::SeqCst)) };
    Ok((pidfd, result))
}

/// Runs in the child, in the host's memory: system calls only.
extern "C" fn become_worker(argument: *mut c_void) -> i32 {
    // SAFETY: the parent's `Child`, which waits; everything else is descriptors and numbers, and
    // arrays that live until the program is replaced.
    unsafe {
        let child = &mut *argument.cast::<Child>();
        // It has all that the host holds, locks and sockets too: it must not outlive it.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if child.waits {
            let mut byte = 0_u8;
            let mut ends = [child.go, child.host].map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            });
            if libc::write(child.ready, ptr::from_ref(&byte).cast(), 1) != 1
                || libc::poll(ends.as_mut_ptr(), ends.len() as libc::nfds_t, -1) < 1
                || ends[0].revents == 0
                || libc::read(child.go, ptr::from_mut(&mut byte).cast(), 1) != 1
                || byte != 1
            {
                libc::_exit(125);
            }
        }
        let fail = |child: &mut Child| -> ! {
            child.error = *libc::__errno_location();
            libc::_exit(126)
        };
        // First out of the way, then into place: a source may lie where another is to be.
        let program = libc::fcntl(child.program, libc::F_DUPFD_CLOEXEC, ASIDE);
        for fd in &mut child.fds {
            *fd = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, ASIDE);
        }
        for (to, fd) in (0..).zip(child.fds) {
            if fd < 0 || libc::dup2(fd, to) < 0 {
                fail(child);
            }
        }
        let rest = descriptor::COUNT as libc::c_uint;
        if libc::syscall(
            libc::SYS_close_range,
            rest,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        ) < 0
        {
            fail(child);
        }
        // The program that replaces this one would inherit what the host ignores.
        default_ignored(&[]);
        // Signals stay blocked: the host's handlers must not run here. The worker lets them in.
        let arguments = [c"hotmerge-worker".as_ptr(), ptr::null()];
        let environment = [ptr::null::<libc::c_char>()];
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        fail(child)
    }
}
