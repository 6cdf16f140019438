//! One worker process and what connects it to the host.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    ops::Deref,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU32},
    time::Duration,
};

use hotmerge_sandbox::{
    Cgroup, Cgroups, Grant, Ids, Limits, Namespaces, Plan, Spawned, signal_on_message, spawn,
};
use hotmerge_wire::{Caller, Geometry, Server};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, poll},
    fs::MemfdFlags,
    io::retry_on_intr,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::{PipeFlags, pipe_with},
    process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid},
};

use super::{
    cells::{Filters, told},
    failure::Report,
    others,
    output::{Budget, PERIOD, Printed, take_records},
};
use crate::{failure::Failure, instance::PluginLog};

/// Longest report; what is more of one is lost.
const REPORT_BYTES: usize = 4 << 10;

/// Most reports of one worker: one before its end, or one a call that panics meanwhile.
const REPORTS: usize = 64;

/// What a worker is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    /// The sealed image; none for a probe.
    pub(super) image: Option<BorrowedFd<'a>>,
    pub(super) header: [u8; 16],
    pub(super) grants: &'a [Grant],
    pub(super) limits: Limits,
    /// Whether the plugin requires others, which it may call.
    pub(super) calls_others: bool,
    /// As whom it is to run, if the operator says so.
    pub(super) user: Option<u32>,
}

/// A started worker process. Killed and waited for when dropped.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) line: Arc<Line>,
    pub(super) pidfd: OwnedFd,
    crash: OwnedFd,
    log: OwnedFd,
    pub(super) printed: [Printed; 2],
    log_budget: Budget,
    crash_closed: bool,
    reports: usize,
    reaped: bool,
    /// Goes after it, so that it is empty then.
    group: Option<Box<Cgroup>>,
}

/// What leads to a worker.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) caller: Caller,
    /// Where the plugin calls others, if it requires any.
    pub(super) others: Option<Server>,
    /// Threads that carry these calls.
    pub(super) carriers: AtomicU32,
    pub(super) pid: i32,
    end: Mutex<Option<Failure>>,
    /// Written to when nobody can call any more.
    pub(super) unused: OwnedFd,
}

/// What callers hold of a worker. The last one to let go of it says so.
#[derive(Debug)]
pub(super) struct Users(Arc<Line>);

impl Users {
    pub(super) fn of(line: &Arc<Line>) -> Arc<Self> {
        Arc::new(Self(Arc::clone(line)))
    }
}

impl Deref for Users {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.0
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.0.unused, &1_u64.to_ne_bytes());
    }
}

impl Line {
    /// The worker is dead: nobody waits for anything of it any more.
    pub(super) fn hang_up(&self) {
        self.caller.hang_up();
        if let Some(others) = &self.others {
            others.hang_up();
        }
    }

    /// How the worker ended, or is about to.
    pub(super) fn end(&self) -> Option<String> {
        self.failure().map(|failure| failure.to_string())
    }

    /// How the worker ended, or is about to, with its parts.
    pub(super) fn failure(&self) -> Option<Failure> {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.clone()
    }

    /// Notes how it ended; the first account counts.
    pub(super) fn note_end(&self, what: impl Into<Failure>) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.get_or_insert_with(|| what.into());
    }
}

/// Starts a worker on this thread.
pub(super) fn launch(
    program: BorrowedFd<'_>,
    parts: &Parts<'_>,
    filters: &Filters,
    namespaces: Namespaces,
    ids: Ids,
    groups: Option<&Arc<Cgroups>>,
) -> Result<Process, String> {
    let geometry = Geometry::default();
    let outgoing = others::geometry();
    let (caller, wire) = Caller::create(geometry).map_err(told("make shared memory"))?;
    let mut shared_bytes = geometry.bytes();
    let (others, others_wire) = if parts.calls_others {
        shared_bytes += outgoing.bytes();
        let made = Server::create(outgoing).map_err(told("make shared memory"))?;
        (Some(made.0), Some(made.1))
    } else {
        (None, None)
    };
    let plan = Plan {
        namespaces: namespaces != Namespaces::None,
        become_id: match (ids, namespaces) {
            (Ids::Own, _) => None,
            (Ids::Other(_), Namespaces::Own { .. }) => Some(1),
            (Ids::Other(id), Namespaces::None) => Some(id),
        },
        user: match ids {
            Ids::Own => rustix::process::geteuid().as_raw(),
            Ids::Other(id) => id,
        },
        grants: parts.grants.to_vec(),
        limits: parts.limits,
        shared_bytes: shared_bytes as u64,
        first: filters.0.clone(),
        second: filters.1.clone(),
        geometry: geometry.to_words(),
        outgoing: others.is_some().then(|| outgoing.to_words()),
        header: parts.header,
        probe: parts.image.is_none(),
    };
    let plan = plan_file(&plan).map_err(told("write a plan"))?;
    let null = File::open("/dev/null").map_err(told("open `/dev/null`"))?;
    let (log, log_in) = messages()?;
    let (crash, crash_in) = messages()?;
    let (out, out_in) = output()?;
    let (err, err_in) = output()?;
    let unused = event().map_err(told("make an event descriptor"))?;
    signal_on_message(crash.as_fd()).map_err(told("ask for a signal"))?;
    let nothing = rustix::fs::memfd_create("hotmerge-probe", MemfdFlags::CLOEXEC)
        .map_err(|error| told("make a file")(error.into()))?;
    let image = parts.image.unwrap_or(nothing.as_fd());
    let fds = [
        null.as_fd(),
        out_in.as_fd(),
        err_in.as_fd(),
        plan.as_fd(),
        wire.as_fd(),
        image,
        log_in.as_fd(),
        crash_in.as_fd(),
        others_wire
            .as_ref()
            .map_or(null.as_fd(), |wire| wire.as_fd()),
    ];
    let group = groups
        .map(|groups| groups.group(&parts.limits, shared_bytes as u64))
        .transpose()
        .map_err(told("make a cgroup for a worker"))?;
    let Spawned { pidfd, pid } =
        spawn(program, fds, namespaces, ids, group.as_ref()).map_err(|error| error.to_string())?;
    Ok(Process {
        line: Arc::new(Line {
            caller,
            others,
            carriers: AtomicU32::new(0),
            pid,
            end: Mutex::default(),
            unused,
        }),
        pidfd,
        crash,
        log,
        printed: [Printed::new(out, "stdout"), Printed::new(err, "stderr")],
        log_budget: Budget::new(),
        crash_closed: false,
        reports: 0,
        reaped: false,
        group: group.map(Box::new),
    })
}

/// A descriptor that wakes whoever waits for it once it was written to.
pub(super) fn event() -> std::io::Result<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    Ok(rustix::event::eventfd(0, flags)?)
}

fn plan_file(plan: &Plan) -> std::io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create(
        "hotmerge-plan",
        MemfdFlags::CLOEXEC,
    )?);
    file.write_all(&serde_json::to_vec(plan)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// The host's end and the worker's: one message is one write.
fn messages() -> Result<(OwnedFd, OwnedFd), String> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(|error| told("make a socket")(error.into()))
}

/// The host's end, which never waits, and the worker's, which does.
fn output() -> Result<(OwnedFd, OwnedFd), String> {
    let pipe = || -> rustix::io::Result<_> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((ours, theirs))
    };
    pipe().map_err(|error| told("make a pipe")(error.into()))
}

impl Process {
    /// Ends it, whatever it does.
    pub(super) fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// How it ended, if it has; waits for the end if `wait`.
    pub(super) fn reap(&mut self, wait: bool) -> Option<WaitIdStatus> {
        let mut options = WaitIdOptions::EXITED;
        if !wait {
            options |= WaitIdOptions::NOHANG;
        }
        let status = retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), options))
            .ok()
            .flatten()?;
        self.reaped = true;
        Some(status)
    }

    /// The next report.
    pub(super) fn report(&self) -> Option<Report> {
        let mut bytes = [0; REPORT_BYTES];
        let len = rustix::io::read(&self.crash, &mut bytes).ok()?;
        (len > 0).then(|| Report::read(&bytes[..len]))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.line.note_end("was ended");
            self.kill();
            self.reap(true);
        }
        self.line.hang_up();
    }
}

/// What one look at a worker brought.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) reports: Vec<Report>,
    pub(super) ended: Option<WaitIdStatus>,
    /// The worker closed its end: it is dead, or as good as dead.
    pub(super) hung_up: bool,
    /// What came as reports were not the worker's.
    pub(super) forged: bool,
    /// `wake` was written to.
    pub(super) woken: bool,
}

impl Process {
    /// Sleeps until the worker says something, has ended, or `wake` is written to; takes what it
    /// says.
    pub(super) fn look(
        &mut self,
        wake: &OwnedFd,
        log: &PluginLog,
        limit: Option<Duration>,
    ) -> Seen {
        let mut seen = Seen::default();
        let ready = self.poll(wake, limit);
        if ready.wake {
            let _ = rustix::io::read(wake, &mut [0; 8]);
        }
        // A plugin may write as well, without end or what nobody reads.
        self.reports += usize::from(ready.reported);
        while let Some(report) = self.report().filter(|_| self.reports <= REPORTS) {
            self.reports += 1;
            seen.forged |= matches!(report, Report::Garbage | Report::Text(_));
            seen.reports.push(report);
        }
        seen.forged |= self.reports > REPORTS;
        seen.hung_up = ready.hung_up;
        seen.woken = ready.wake;
        if ready.ended {
            seen.ended = self.reap(false);
        }
        let last = seen.ended.is_some();
        take_records(&self.log, &mut self.log_budget, log, last);
        for printed in &mut self.printed {
            // After the end there is at most a pipe's fill.
            for _ in 0..if last { 16 } else { 1 } {
                if last || printed.budget.is_open() {
                    printed.take(log.plugin());
                }
            }
            if last {
                printed.flush(log.plugin());
            }
        }
        seen
    }

    fn poll(&mut self, wake: &OwnedFd, limit: Option<Duration>) -> Ready {
        let mut limit = limit;
        let log_open = self.log_budget.is_open();
        let open = [0, 1].map(|at: usize| self.printed[at].budget.is_open());
        if !log_open || open != [true; 2] {
            limit = Some(limit.map_or(PERIOD, |limit| limit.min(PERIOD)));
        }
        let mut fds = vec![
            PollFd::new(&self.pidfd, PollFlags::IN),
            PollFd::new(wake, PollFlags::IN),
        ];
        if !self.crash_closed {
            fds.push(PollFd::new(&self.crash, PollFlags::IN));
        }
        if log_open && !self.crash_closed {
            fds.push(PollFd::new(&self.log, PollFlags::IN));
        }
        for (printed, open) in self.printed.iter().zip(open) {
            if let (true, Some(pipe)) = (open, &printed.pipe) {
                fds.push(PollFd::new(pipe, PollFlags::IN));
            }
        }
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let _ = poll(&mut fds, limit.as_ref());
        let has = |at: usize, flags| fds[at].revents().intersects(flags);
        let ready = Ready {
            ended: has(0, PollFlags::IN),
            wake: has(1, PollFlags::IN),
            hung_up: !self.crash_closed && has(2, PollFlags::HUP),
            reported: !self.crash_closed && has(2, PollFlags::IN),
        };
        drop(fds);
        self.crash_closed |= ready.hung_up;
        ready
    }
}

struct Ready {
    ended: bool,
    wake: bool,
    hung_up: bool,
    reported: bool,
}
