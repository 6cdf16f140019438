//! Reads what workers write, and notices that they have ended.

use std::{os::fd::OwnedFd, thread, time::Duration};

use hotmerge_sandbox::{Ended, message::Taken};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::Process;
use crate::{
    failure::Failure,
    worker::{
        output::{AT_ONCE, LEFT, PERIOD, PluginLog, take_records},
        report::Report,
    },
};

/// How often workers are checked if the system cannot wait for them.
const BLIND: Duration = Duration::from_millis(100);

/// What one poll of a worker found.
#[derive(Debug, Default)]
pub(in crate::worker) struct Observed {
    /// The first panic that was caught. One is enough to replace the worker.
    pub(in crate::worker) panic: Option<Failure>,
    /// A signal was about to kill it.
    pub(in crate::worker) was_hit: bool,
    pub(in crate::worker) ended: Option<Ended>,
    /// The worker closed its end: it is dead or about to end.
    pub(in crate::worker) hung_up: bool,
    /// Some reports did not come from the worker program.
    pub(in crate::worker) forged: bool,
}

/// Sleeps until one of the workers says something or has ended, or `wake` is written to; takes
/// what they say. Returns what it brought for each, and whether `wake` was written to.
pub(in crate::worker) fn poll_all(
    workers: &mut [&mut Process],
    wake: &OwnedFd,
    log: &PluginLog,
    limit: Option<Duration>,
) -> (Vec<Observed>, bool) {
    let (ready, woken) = wait(workers, wake, limit);
    // It never waits.
    let woken = woken && rustix::io::read(wake, &mut [0; 8]).is_ok();
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

/// What happened to a worker while its thread slept.
struct Ready {
    ended: bool,
    hung_up: bool,
}

/// Sleeps until something can be taken.
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
    // The pipes do not signal data that was read from them already.
    let mut both = workers.iter().zip(&open);
    if both.any(|(worker, open)| worker.has_more(open)) {
        limit = Some(Duration::ZERO);
    }
    let mut fds = vec![PollFd::new(wake, PollFlags::IN)];
    let mut firsts = Vec::new();
    for (worker, open) in workers.iter().zip(&open) {
        firsts.push(fds.len());
        worker.add_to(&mut fds, open);
    }
    let timeout = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let waited = poll(&mut fds, timeout.as_ref());
    // Without memory, or with more descriptors than the host may have by now.
    let is_blind = waited.is_err_and(|error| error != Errno::INTR);
    if is_blind {
        thread::park_timeout(limit.map_or(BLIND, |limit| limit.min(BLIND)));
    }
    let has = |at: usize, flags| fds[at].revents().intersects(flags);
    let ready = workers.iter().zip(firsts).map(|(worker, first)| Ready {
        ended: is_blind || has(first, PollFlags::IN),
        hung_up: !worker.crash_closed && has(first + 1, PollFlags::HUP),
    });
    (ready.collect(), is_blind || has(0, PollFlags::IN))
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

    fn has_more(&self, open: &Open) -> bool {
        open.reports && self.reports.has_one() || open.log && self.records.has_one()
    }

    /// Adds what to wait for: the process, the crash pipe if it is open, then the rest.
    fn add_to<'a>(&'a self, fds: &mut Vec<PollFd<'a>>, open: &Open) {
        fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
        if !self.crash_closed {
            // The kernel reports a closed pipe even if no event is requested.
            let reports = match open.reports {
                true => PollFlags::IN,
                false => PollFlags::empty(),
            };
            fds.push(PollFd::new(&self.link.crash, reports));
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

    /// Reads the worker's reports, including the final ones if it has ended.
    pub(super) fn take(&mut self, log: &PluginLog, last: bool) -> Observed {
        let seen = self.take_reports(last);
        take_records(
            &self.log,
            &mut self.records,
            &mut self.log_budget,
            log,
            last,
        );
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
    /// a plugin may write as well, endlessly or garbage. Anything beyond the
    /// budget waits in the pipe, and what does not fit there is lost.
    fn take_reports(&mut self, last: bool) -> Observed {
        let mut seen = Observed::default();
        for _ in 0..if last { LEFT } else { AT_ONCE } {
            if !last && !self.report_budget.is_open() {
                break;
            }
            let bytes = match self.reports.next(&self.link.crash) {
                Taken::Message(bytes) => bytes,
                Taken::Torn => {
                    seen.forged = true;
                    continue;
                }
                Taken::Nothing => break,
            };
            self.report_budget.spend(bytes.len());
            match Report::read(bytes) {
                Report::Panic(failure) => _ = seen.panic.get_or_insert(failure),
                Report::Signal(hit) => {
                    seen.was_hit = true;
                    let hit = hit.resolve(&self.link.caller);
                    // Threads that die together report one after the other.
                    self.hit.get_or_insert(hit);
                }
                Report::Survived(hit) => {
                    seen.was_hit = true;
                    self.hit = None;
                    self.survived = Some(hit);
                }
                Report::Text(_) | Report::Garbage => seen.forged = true,
            }
        }
        seen
    }
}
