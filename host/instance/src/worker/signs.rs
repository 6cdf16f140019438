//! Judges what was observed of a process: whether it is over, and when to check again without an
//! event.

use std::time::{Duration, Instant};

use hotmerge_sandbox::Ended;
use hotmerge_wire::now_ns;

use crate::{
    failure::Failure,
    worker::{
        calls::Worker,
        exchange::doing,
        process::{Link, Observed, Process, poll_all},
        report,
    },
};

/// How long an abandoned call may run beyond its deadline before the worker is ended.
const GRACE: Duration = Duration::from_secs(1);
/// After so many calls in a row that a worker did not take in time, it is ended.
const UNANSWERED: u32 = 3;
/// How often running calls are checked.
const TICK: Duration = Duration::from_millis(100);
/// How long a worker that closed its pipe, or that went on after a signal, has to end by itself, so
/// that its true status is known.
const LAST: Duration = Duration::from_millis(200);
/// How long a worker has to end of a signal that is to kill it. Only on a busy machine does it take long,
/// and a worker that still runs after it is killed.
const DYING: Duration = Duration::from_secs(2);

/// Ends that the kernel does not know.
const CLOSED: &str = "closed its descriptors";
const FORGED: &str = "broke the protocol: it sent an unknown report";
const UNRESPONSIVE: &str =
    "did not answer: several calls in a row passed their deadlines before it accepted them";
const HUNG: &str = "hung: a call continued after its deadline";

impl Worker {
    /// Sleeps until one of the processes says something, or the thread is woken. Ends those that
    /// must be killed. Reports for each what was observed, and whether it is over.
    pub(super) fn observe(
        &self,
        workers: &mut [&mut Process],
        limit: Option<Duration>,
    ) -> Vec<(Observed, bool)> {
        let due = workers.iter().filter_map(|worker| due(worker));
        let limit = due.chain(limit).min();
        let (seen, _) = poll_all(workers, &self.wake, &self.log, limit);
        let judge = |(worker, seen): (&mut &mut Process, Observed)| {
            let is_over = self.is_over(worker, &seen);
            (seen, is_over)
        };
        workers.iter_mut().zip(seen).map(judge).collect()
    }

    /// Whether a worker turns out to be dead, or was killed for its behaviour.
    pub(super) fn is_over(&self, process: &mut Process, seen: &Observed) -> bool {
        if let Some(ended) = &seen.ended {
            process.link.record_end(cause(process, ended));
            return true;
        }
        if seen.is_final() {
            // The kernel's account of its end comes a little later.
            let is_dying = process.hit.is_some() && !seen.hung_up;
            let end_by = Instant::now() + if is_dying { DYING } else { LAST };
            let earlier = process.end_by.map_or(end_by, |before| before.min(end_by));
            process.end_by = Some(earlier);
        }
        let what = if seen.forged {
            FORGED.into()
        } else if let Some(what) = process.link.kill_order() {
            what.into()
        } else if let Some(what) = process.watched.excess() {
            meanwhile(&what, &process.link)
        } else if hangs(&process.link) {
            meanwhile(HUNG, &process.link)
        } else if process.link.caller.unanswered() >= UNANSWERED {
            UNRESPONSIVE.into()
        } else if process.end_by.is_some_and(|end| end <= Instant::now()) {
            let hit = process.hit.take().or(process.survived.take());
            if let Some(hit) = hit {
                process.link.record_end(hit.outlived());
            }
            CLOSED.into()
        } else {
            return false;
        };
        // Unless more is known.
        process.link.record_end(what);
        process.finish(&self.log);
        true
    }
}

impl Observed {
    /// Whether the worker has nothing more to say, and its end is near if it is honest.
    fn is_final(&self) -> bool {
        self.hung_up || self.was_hit
    }
}

/// When a worker must be checked without an event.
pub(super) fn due(process: &Process) -> Option<Duration> {
    let left = |end: Instant| end.saturating_duration_since(Instant::now());
    let abandoned = process.link.caller.abandoned_due();
    let tick = abandoned.map(|due| until(due) + TICK);
    process.end_by.map(left).into_iter().chain(tick).min()
}

/// Whether an abandoned call has run for too long.
fn hangs(link: &Link) -> bool {
    let for_too_long = |due| Duration::from_nanos(now_ns().saturating_sub(due)) > GRACE;
    link.caller.abandoned_due().is_some_and(for_too_long)
}

/// The cause of a worker's end. The kernel names the fact. What the worker reported before names the
/// place, but only if this is the end that it was about.
fn cause(process: &Process, ended: &Ended) -> Failure {
    let end = meanwhile(&report::ended(ended, &process.limits), &process.link);
    match (&process.hit, &process.survived) {
        (Some(hit), _) if hit.explains(ended) => hit.killed().or_during(end.during),
        (Some(hit), _) | (None, Some(hit)) => hit.before(&end.to_string()),
        (None, None) => end,
    }
}

/// What happened, and what the worker was about meanwhile, if that was one thing: the kernel does not
/// say which thread it was.
fn meanwhile(what: &str, link: &Link) -> Failure {
    let under_way = link.caller.under_way();
    let during = match &under_way[..] {
        [] => None,
        [one] => match doing(one.op) {
            Some(step) => Some(step.to_owned()),
            None => Some(format!("`{}` ran", one.method)),
        },
        several => Some(format!("{} calls ran", several.len())),
    };
    Failure::from(what).or_during(during)
}

/// How long until a point on the monotonic clock in nanoseconds.
fn until(point_ns: u64) -> Duration {
    Duration::from_nanos(point_ns.saturating_sub(now_ns()))
}
