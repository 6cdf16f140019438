//! One worker process and what connects it to the host.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    ops::Deref,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU32},
    time::{Duration, Instant},
};

use hotmerge_sandbox::{
    Cgroup, Cgroups, Ended, Grant, Ids, Limits, Namespaces, Plan, Spawned, no_signal_on_message,
    reap, signal_on_message, spawn,
};
use hotmerge_wire::{Caller, Geometry, Server};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, poll},
    fs::MemfdFlags,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::{PipeFlags, pipe_with},
    process::{Signal, pidfd_send_signal},
};

use super::{
    cells::{Filters, told},
    failure::Report,
    others,
    output::{AT_ONCE, Budget, LEFT, PERIOD, Printed, take_records},
};
use crate::{failure::Failure, instance::PluginLog};

/// Longest report; what is more of one is lost.
const REPORT_BYTES: usize = 4 << 10;

/// What a worker is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    /// The sealed image; none for a probe.
    pub(super) image: Option<BorrowedFd<'a>>,
    /// Of the C runtime, that the plugin needs.
    pub(super) libraries: &'a [String],
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
    log: OwnedFd,
    pub(super) printed: [Printed; 2],
    log_budget: Budget,
    crash_closed: bool,
    report_budget: Budget,
    /// By when it has to end by itself, since it has said its last word.
    pub(super) end_by: Option<Instant>,
    /// How much it may use.
    pub(super) limits: Limits,
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
    /// Where it reports its crashes.
    crash: OwnedFd,
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

    /// The worker is to end: that is no crash, and signals none.
    pub(super) fn expect_end(&self) {
        // Fails for no descriptor that is open; it would cost a number in the status.
        let _ = no_signal_on_message(self.crash.as_fd());
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
        libraries: parts.libraries.to_vec(),
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
    // What a probe reports is asked of it after its end, and is no crash.
    if parts.image.is_some() {
        signal_on_message(crash.as_fd()).map_err(told("ask for a signal"))?;
    }
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
            crash,
            end: Mutex::default(),
            unused,
        }),
        pidfd,
        log,
        printed: [Printed::new(out, "stdout"), Printed::new(err, "stderr")],
        log_budget: Budget::new(),
        crash_closed: false,
        report_budget: Budget::new(),
        end_by: None,
        limits: parts.limits,
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
        self.line.expect_end();
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// How it ended, if it has; waits for the end if `wait`.
    pub(super) fn reap(&mut self, wait: bool) -> Option<Ended> {
        let ended = reap(self.pidfd.as_fd(), wait).ok().flatten()?;
        self.reaped = true;
        Some(ended)
    }

    /// The next report.
    pub(super) fn report(&self) -> Option<Report> {
        let mut bytes = [0; REPORT_BYTES];
        let len = rustix::io::read(&self.line.crash, &mut bytes).ok()?;
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
    /// The first panic that was caught. One is enough to replace the worker.
    pub(super) panic: Option<Report>,
    /// The first signal that is about to kill it.
    pub(super) signal: Option<Report>,
    pub(super) ended: Option<Ended>,
    /// The worker closed its end: it is dead, or as good as dead.
    pub(super) hung_up: bool,
    /// What came as reports were not the worker's.
    pub(super) forged: bool,
}

/// Sleeps until one of the workers says something or has ended, or `wake` is written to; takes
/// what they say. Returns what it brought for each, and whether `wake` was written to.
pub(super) fn look(
    workers: &mut [&mut Process],
    wake: &OwnedFd,
    log: &PluginLog,
    limit: Option<Duration>,
) -> (Vec<Seen>, bool) {
    let (ready, woken) = wait(workers, wake, limit);
    if woken {
        let _ = rustix::io::read(wake, &mut [0; 8]);
    }
    let seen = workers
        .iter_mut()
        .zip(ready)
        .map(|(worker, ready)| {
            worker.crash_closed |= ready.hung_up;
            let ended = ready.ended.then(|| worker.reap(false)).flatten();
            let mut seen = worker.take(log, ended.is_some());
            seen.ended = ended;
            seen.hung_up = ready.hung_up;
            seen
        })
        .collect();
    (seen, woken)
}

/// What became of a worker while somebody slept.
struct Ready {
    ended: bool,
    hung_up: bool,
}

/// Sleeps until there is something to look at.
fn wait(
    workers: &mut [&mut Process],
    wake: &OwnedFd,
    limit: Option<Duration>,
) -> (Vec<Ready>, bool) {
    let mut limit = limit;
    let open: Vec<_> = workers.iter_mut().map(|worker| worker.open()).collect();
    if open.iter().any(|open| !open.all()) {
        limit = Some(limit.map_or(PERIOD, |limit| limit.min(PERIOD)));
    }
    let mut fds = vec![PollFd::new(wake, PollFlags::IN)];
    let mut firsts = Vec::new();
    for (worker, open) in workers.iter().zip(&open) {
        firsts.push(fds.len());
        worker.add_to(&mut fds, open);
    }
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let _ = poll(&mut fds, limit.as_ref());
    let has = |at: usize, flags| fds[at].revents().intersects(flags);
    let ready = workers.iter().zip(firsts).map(|(worker, first)| Ready {
        ended: has(first, PollFlags::IN),
        hung_up: !worker.crash_closed && has(first + 1, PollFlags::HUP),
    });
    (ready.collect(), has(0, PollFlags::IN))
}

/// Of which sources of a worker more may be taken now.
struct Open {
    reports: bool,
    log: bool,
    printed: [bool; 2],
}

impl Open {
    fn all(&self) -> bool {
        self.reports && self.log && self.printed == [true; 2]
    }
}

impl Process {
    fn open(&mut self) -> Open {
        Open {
            reports: self.report_budget.is_open(),
            log: self.log_budget.is_open(),
            printed: [0, 1].map(|at: usize| self.printed[at].budget.is_open()),
        }
    }

    /// Adds what to wait for: the process, the crash socket if it is open, then the rest.
    fn add_to<'a>(&'a self, fds: &mut Vec<PollFd<'a>>, open: &Open) {
        fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
        if !self.crash_closed {
            // That it is closed is told even if nothing is asked for.
            let reports = match open.reports {
                true => PollFlags::IN,
                false => PollFlags::empty(),
            };
            fds.push(PollFd::new(&self.line.crash, reports));
        }
        if open.log && !self.crash_closed {
            fds.push(PollFd::new(&self.log, PollFlags::IN));
        }
        for (printed, open) in self.printed.iter().zip(open.printed) {
            if let (true, Some(pipe)) = (open, &printed.pipe) {
                fds.push(PollFd::new(pipe, PollFlags::IN));
            }
        }
    }

    /// Takes what the worker says; its last words if it has ended.
    fn take(&mut self, log: &PluginLog, last: bool) -> Seen {
        let seen = self.take_reports(last);
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

    /// Takes reports. Every call that panics brings one, so that no number of them is wrong; but
    /// a plugin may write as well, without end or what nobody reads. What is more than the
    /// budget waits in the socket, and what finds no room there is lost to the plugin.
    fn take_reports(&mut self, last: bool) -> Seen {
        let mut seen = Seen::default();
        for _ in 0..if last { LEFT } else { AT_ONCE } {
            if !last && !self.report_budget.is_open() {
                break;
            }
            let mut bytes = [0; REPORT_BYTES];
            let Ok(len) = rustix::io::read(&self.line.crash, &mut bytes) else {
                break;
            };
            self.report_budget.spend(len);
            if len == 0 {
                break;
            }
            match Report::read(&bytes[..len]) {
                report @ Report::Panic(_) => _ = seen.panic.get_or_insert(report),
                report @ Report::Signal { .. } => _ = seen.signal.get_or_insert(report),
                Report::Text(_) | Report::Garbage => seen.forged = true,
            }
        }
        seen
    }

    /// Ends it and takes its last words.
    pub(super) fn finish(&mut self, log: &PluginLog) {
        self.kill();
        self.reap(true);
        self.take(log, true);
    }
}
