//! One worker process and what connects it to the host.

mod launch;
mod link;
mod poll;
#[cfg(test)]
pub(super) mod tests;
mod watched;

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::Instant,
};

use hotmerge_sandbox::{
    Cgroup, Ended, Limits,
    message::{Inbox, Taken},
    reap,
};
use rustix::{
    event::EventfdFlags,
    process::{Signal, pidfd_send_signal},
};

pub(super) use self::{
    launch::{Filters, LARGEST_OUTGOING, MOST_OUTGOING, Parts, launch},
    link::{Callers, Link},
    poll::{Observed, poll_all},
    watched::{TICK as MEMORY_TICK, Watched},
};
use crate::worker::{
    output::{Budget, PluginLog, Printed},
    report::{Hit, Report},
};

/// A started worker process. Killed and waited for when dropped.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) link: Arc<Link>,
    pub(super) pidfd: OwnedFd,
    log: OwnedFd,
    records: Inbox,
    reports: Inbox,
    pub(super) printed: [Printed; 2],
    log_budget: Budget,
    crash_closed: bool,
    report_budget: Budget,
    /// The deadline for its own end, after its final report.
    pub(super) end_by: Option<Instant>,
    /// The signal that it has reported and that is to end it.
    pub(super) hit: Option<Hit>,
    /// What it has reported, and survived.
    pub(super) survived: Option<Hit>,
    /// How much it may use.
    pub(super) limits: Limits,
    /// How much memory it uses.
    pub(super) watched: Watched,
    reaped: bool,
    /// Dropped after it, so that it is empty then.
    group: Option<Box<Cgroup>>,
}

/// A descriptor that wakes the waiting thread when it is written to.
pub(super) fn event() -> std::io::Result<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    Ok(rustix::event::eventfd(0, flags)?)
}

/// The host's ends of the pipes that a worker writes to.
#[derive(Debug)]
struct Pipes {
    log: OwnedFd,
    out: OwnedFd,
    err: OwnedFd,
}

impl Process {
    /// Watches its memory on this thread.
    fn new(
        link: Arc<Link>,
        pidfd: OwnedFd,
        Pipes { log, out, err }: Pipes,
        limits: Limits,
        group: Option<Cgroup>,
    ) -> Self {
        Self {
            watched: Watched::of(link.pid, limits.memory_bytes),
            link,
            pidfd,
            log,
            records: Inbox::default(),
            reports: Inbox::default(),
            printed: [Printed::new(out, "stdout"), Printed::new(err, "stderr")],
            log_budget: Budget::new(),
            crash_closed: false,
            report_budget: Budget::new(),
            end_by: None,
            hit: None,
            survived: None,
            limits,
            reaped: false,
            group: group.map(Box::new),
        }
    }

    /// Ends it, whatever it does.
    pub(super) fn kill(&self) {
        self.link.expect_end();
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
    pub(super) fn report(&mut self) -> Option<Report> {
        loop {
            match self.reports.next(&self.link.crash) {
                Taken::Message(bytes) => return Some(Report::read(bytes)),
                Taken::Torn => {}
                Taken::Nothing => return None,
            }
        }
    }

    /// Ends it and takes its last words.
    pub(super) fn finish(&mut self, log: &PluginLog) {
        self.kill();
        self.reap(true);
        self.take(log, true);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.link.record_end("was ended");
            self.kill();
            self.reap(true);
        }
        self.link.hang_up();
    }
}
