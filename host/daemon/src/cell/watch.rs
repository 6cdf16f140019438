//! The thread of a cell: starts the worker, watches it, replaces it.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hotmerge_abi::{self as abi, CallContext};
use hotmerge_wire::{Failure as WireFailure, Reply, Request, after_ns, now_ns, op};

use super::{
    calls::{Cell, EXIT, Phase},
    cells::told,
    failure,
    process::{Line, Parts, Process, Seen, Users, look},
    restarts::{Restarts, Verdict},
};

use crate::{
    failure::Failure,
    health::too_often,
    threads::{self, ASK_AGAIN},
};

/// How long a call that nobody waits for may go on after its deadline, before the worker is ended.
const GRACE: Duration = Duration::from_secs(1);
/// How often calls that go on are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long a worker that closed its pipe has to end by itself, so that its true status is
/// known.
const LAST: Duration = Duration::from_millis(200);

/// Ends that the kernel knows nothing of.
const CLOSED: &str = "closed its descriptors";
const FORGED: &str = "broke the protocol: it reported what no worker reports";
const HUNG: &str = "hung: a call went on after its deadline";

/// Why a worker is not watched any more.
enum End {
    /// The host wanted it.
    Asked,
    /// It crashed, or was ended for what it did.
    Crashed(Failure),
    /// A panic was caught: it still answers, and is to be replaced.
    Panicked(Box<Process>, Failure),
}

/// Why there is no worker.
enum BringUpError {
    /// The system does not give what it takes, which is no fault of the plugin's.
    System(String),
    /// The plugin did not start in it.
    Plugin(String),
}

impl Cell {
    /// Runs until the cell is to end.
    pub(super) fn run(self: Arc<Self>) {
        let mut restarts = Restarts::new(self.cells.config.restart);
        let mut process = match self.bring_up(&mut None) {
            Ok(process) => process,
            Err(BringUpError::System(reason) | BringUpError::Plugin(reason)) => {
                return self.set_phase(Phase::Ended(reason));
            }
        };
        loop {
            self.go_live(&process);
            let (what, old) = match self.watch(process) {
                End::Asked => return self.set_phase(Phase::Ended("it was ended".into())),
                End::Crashed(what) => (what, None),
                End::Panicked(old, what) => (what, Some(*old)),
            };
            match self.replace(&mut restarts, what, old) {
                Some(next) => process = next,
                None => return self.set_phase(Phase::Ended("it was ended".into())),
            }
        }
    }

    /// Brings up the next worker; `None` if the cell is to end instead. A worker that still
    /// answers, because its panic was caught, goes on taking calls meanwhile, and is watched.
    fn replace(
        self: &Arc<Self>,
        restarts: &mut Restarts,
        mut what: Failure,
        mut old: Option<Process>,
    ) -> Option<Process> {
        loop {
            self.cells.crash_signals();
            self.services
                .reporter()
                .crashed(&what, self.last_state.last().as_ref());
            match restarts.crashed(Instant::now()) {
                Verdict::After(pause) => {
                    if old.is_none() && !pause.is_zero() {
                        self.set_phase(Phase::Pausing(what.to_string()));
                    }
                    if !self.pause(Some(pause), &mut old) {
                        return None;
                    }
                }
                Verdict::Enough => {
                    // What still answers after panics is not trusted any longer either.
                    self.take_out();
                    if let Some(old) = old.take() {
                        self.retire(old);
                    }
                    let config = self.cells.config.restart;
                    let why = too_often(config, self.log.plugin(), &what);
                    tracing::error!(plugin = %self.log.plugin(), "{why}");
                    self.set_phase(Phase::GivenUp(why.clone()));
                    self.services.reporter().given_up(why);
                    if !self.pause(None, &mut None) {
                        return None;
                    }
                    self.services.reporter().revived();
                }
            }
            let next = self.bring_up_when_possible(&what, &mut old)?;
            self.state().waiting = None;
            match next {
                Ok(next) => {
                    // Who sees it counted is answered by the new one.
                    self.take_out();
                    self.services.reporter().restarted();
                    if let Some(old) = old {
                        self.retire(old);
                    }
                    return Some(next);
                }
                Err(reason) => what = Failure::from(format!("was not replaced: {reason}")),
            }
        }
    }

    /// Tries to bring up the next worker for as long as the system does not give what it takes;
    /// `None` if the cell is to end instead.
    fn bring_up_when_possible(
        self: &Arc<Self>,
        what: &Failure,
        old: &mut Option<Process>,
    ) -> Option<Result<Process, String>> {
        let plugin = self.log.plugin();
        let mut is_new = true;
        loop {
            if old.is_none() {
                self.set_phase(Phase::Starting);
            }
            let reason = match self.bring_up(old) {
                Ok(next) => return Some(Ok(next)),
                Err(BringUpError::Plugin(reason)) => return Some(Err(reason)),
                Err(BringUpError::System(reason)) => reason,
            };
            let why = format!("{what}, and there is no other worker yet: {reason}");
            if std::mem::take(&mut is_new) {
                tracing::error!(%plugin, "it {why}; trying again every {} ms", ASK_AGAIN.as_millis());
            }
            self.state().waiting = Some(format!("there is no other worker yet: {reason}"));
            if old.is_none() {
                self.set_phase(Phase::Pausing(why));
            }
            if !self.pause(Some(ASK_AGAIN), old) {
                return None;
            }
        }
    }

    /// Waits; `false` if the cell is to end. Without a time, until somebody revives it.
    fn pause(&self, time: Option<Duration>, old: &mut Option<Process>) -> bool {
        let until = time.map(|time| Instant::now() + time);
        loop {
            let mut state = self.state();
            // What still answers may be in the midst of its teardown: it has until `stop`.
            if state.stop || (state.ending && old.is_none()) {
                return false;
            }
            if std::mem::take(&mut state.revive) {
                return true;
            }
            let until = until.filter(|_| !state.ending);
            drop(state);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return true;
            }
            self.look_on(None, old, left);
        }
    }

    /// Sleeps until one of the workers says something, or the cell is stirred. Ends those that
    /// must be ended. Says for each what was seen, and whether it is over.
    fn look(&self, workers: &mut [&mut Process], limit: Option<Duration>) -> Vec<(Seen, bool)> {
        let due = workers.iter().filter_map(|worker| due(worker));
        let limit = due.chain(limit).min();
        let (seen, _) = look(workers, &self.wake, &self.log, limit);
        let judge = |(worker, seen): (&mut &mut Process, Seen)| {
            let is_over = self.is_over(worker, &seen);
            (seen, is_over)
        };
        workers.iter_mut().zip(seen).map(judge).collect()
    }

    /// As [`Cell::look`], at a worker that is being started, if any, and at the one whose place
    /// it is to take, as long as that answers. If that ends, its callers learn it at once, and
    /// who comes then waits for the new one. Says whether the new one is over.
    fn look_on(
        &self,
        new: Option<&mut Process>,
        old: &mut Option<Process>,
        limit: Option<Duration>,
    ) -> bool {
        let has_new = new.is_some();
        let mut workers: Vec<_> = new.into_iter().chain(old.as_mut()).collect();
        let mut seen = self.look(&mut workers, limit);
        let new_is_over = has_new && seen.remove(0).1;
        if seen.iter().any(|(_, is_over)| *is_over)
            && let Some(old) = old.take()
        {
            let what = self.bury(old);
            tracing::warn!(plugin = %self.log.plugin(), "the worker to be replaced {what}");
        }
        new_is_over
    }

    /// Whether a worker is dead after a look, or was ended for what it did.
    fn is_over(&self, process: &mut Process, seen: &Seen) -> bool {
        if note_end(process, seen) {
            return true;
        }
        if seen.is_last_word() {
            // The kernel's account of its end comes a little later.
            process.end_by.get_or_insert_with(|| Instant::now() + LAST);
        }
        let what = if seen.forged {
            FORGED.to_owned()
        } else if let Some(what) = self.condemned(&process.line) {
            what
        } else if let Some(what) = process.watched.excess() {
            what
        } else if hangs(&process.line) {
            HUNG.to_owned()
        } else if process.end_by.is_some_and(|end| end <= Instant::now()) {
            CLOSED.to_owned()
        } else {
            return false;
        };
        process.line.note_end(what);
        process.finish(&self.log);
        true
    }

    fn set_phase(&self, phase: Phase) {
        self.state().phase = phase;
        self.changed.notify_all();
    }

    fn go_live(&self, process: &Process) {
        let mut state = self.state();
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(Users::of(&process.line));
        state.phase = Phase::Live;
        drop(state);
        self.changed.notify_all();
    }

    /// Lets no new call reach the worker. Callers that were on it find the cell starting
    /// another, so that they wait for that.
    fn take_out(&self) {
        let mut state = self.state();
        state.phase = Phase::Starting;
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Starts a process and the plugin in it, while `old` goes on.
    fn bring_up(self: &Arc<Self>, old: &mut Option<Process>) -> Result<Process, BringUpError> {
        let header = self.image.header();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&header.magic);
        bytes[8..10].copy_from_slice(&header.abi_major.to_ne_bytes());
        bytes[10..12].copy_from_slice(&header.abi_minor.to_ne_bytes());
        bytes[12..].copy_from_slice(&header.size.to_ne_bytes());
        let began = Instant::now();
        let (needs, limit) = (
            self.image.writable_bytes() >> 20,
            self.settings.limits.memory_mib,
        );
        if needs > limit {
            return Err(BringUpError::Plugin(format!(
                "it needs {needs} MiB of memory as soon as it is loaded, and `limits.memory_mib` gives it {limit}"
            )));
        }
        let launched = self.cells.launch(Parts {
            image: Some(self.image.memory()),
            plugin: self.log.plugin().as_str(),
            libraries: &self.libraries,
            header: bytes,
            constructors: self
                .image
                .constructors()
                .map_err(|error| BringUpError::Plugin(error.to_string()))?,
            grants: &self.settings.allow,
            limits: self.settings.limits.into(),
            calls_others: !self.services.meta().requires.is_empty(),
            user: self.settings.user,
        });
        let mut process = launched.map_err(BringUpError::System)?;
        let line = Arc::clone(&process.line);
        self.carry_calls(&line).map_err(BringUpError::System)?;
        // The thread itself is not finished yet when it stirs this one.
        let done = AtomicBool::new(false);
        let outcome = thread::scope(|scope| {
            let ask = || {
                let outcome = self.start_plugin(&line);
                done.store(true, Ordering::SeqCst);
                self.stir();
                outcome
            };
            let start = thread::Builder::new().spawn_scoped(scope, ask);
            let start = start
                .map_err(told("start a thread"))
                .map_err(BringUpError::System)?;
            let mut is_done = false;
            while !is_done {
                is_done = done.load(Ordering::SeqCst);
                // And once more when it has answered: what the plugin did to its worker before
                // that can be seen by then.
                let limit = is_done.then_some(Duration::ZERO);
                if self.look_on(Some(&mut process), old, limit) {
                    // So that whoever waits for it learns that it is over.
                    process.line.hang_up();
                    break;
                }
                if self.state().stop {
                    process.line.note_end("was ended while it started");
                    process.kill();
                }
            }
            if process.end_by.is_some() {
                process.line.note_end(CLOSED);
            }
            start
                .join()
                .unwrap_or_else(|_| Err("a thread panicked".into()))
                .map_err(BringUpError::Plugin)
        });
        let missing = outcome?;
        if let Some(end) = line.end() {
            let what = format!("its worker {end} while it started");
            return Err(BringUpError::Plugin(what));
        }
        let mut state = self.state();
        state.missing = missing;
        state.start = began.elapsed();
        drop(state);
        Ok(process)
    }

    /// Asks the worker to start the plugin, and to take over the last state that is known.
    fn start_plugin(&self, line: &Line) -> Result<Vec<String>, String> {
        let until_ns = after_ns(self.cells.config.start());
        let missing = self.demand(line, op::LOAD, "", &[], until_ns)?;
        // Nothing of the plugin has run so far that could make it look so.
        self.cells.check_filters(&self.settings.allow, line.pid)?;
        self.demand(line, op::START, "", self.config.as_bytes(), until_ns)?;
        if let Some(saved) = self.last_state.last()
            && let Err(reason) = self.demand(
                line,
                op::RESTORE,
                &saved.from,
                &saved.bytes,
                after_ns(self.cells.config.start()),
            )
        {
            // An instance that did not take it over must not take calls, and the next one is
            // not tried with it again.
            self.last_state.forget();
            return Err(format!("the last state was not taken over: {reason}"));
        }
        Ok(missing.lines().map(str::to_owned).collect())
    }

    fn demand(
        &self,
        line: &Line,
        op: u32,
        method: &str,
        bytes: &[u8],
        until_ns: u64,
    ) -> Result<String, String> {
        let context = CallContext::default();
        let limit = self.cells.config.start();
        let request = Request {
            op,
            context: &context,
            method,
            bytes,
            reply_limit: 64 << 10,
            give_up_ns: until_ns,
            cancel: None,
            on_behalf_of: None,
        };
        let mut reply = Reply::default();
        let outcome = line.caller.call(&request, &mut reply);
        let text = String::from_utf8_lossy(&reply.bytes).into_owned();
        match outcome {
            Ok(abi::STATUS_OK) => Ok(text),
            Ok(_) => Err(text),
            Err(WireFailure::Gone { .. }) => {
                let end = line.end().unwrap_or_else(|| "has ended".into());
                Err(format!("its worker {end} while it started"))
            }
            Err(WireFailure::Deadline) => Err(format!(
                "it has not started within {} ms; its worker was ended",
                limit.as_millis()
            )),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// Why a worker must be ended, if somebody has found out while it was watched.
    fn condemned(&self, line: &Line) -> Option<String> {
        let condemned = &mut self.state().condemned;
        let (_, what) = condemned.take_if(|(pid, _)| *pid == line.pid)?;
        Some(what)
    }

    /// Watches a worker that takes calls.
    fn watch(&self, mut process: Process) -> End {
        loop {
            let Some((seen, is_over)) = self.look(&mut [&mut process], None).pop() else {
                continue;
            };
            if is_over {
                let what = self.bury(process);
                let state = self.state();
                return match state.ending || state.stop {
                    true => End::Asked,
                    false => End::Crashed(what),
                };
            }
            if process.end_by.is_some() {
                continue;
            }
            if let Some(report) = seen.panic {
                let what = report.describe(&process.line.caller);
                return End::Panicked(Box::new(process), what);
            }
            if self.state().stop {
                return self.ended(process);
            }
        }
    }

    /// The worker is dead: its callers learn that, and who comes now waits for the next one.
    fn bury(&self, process: Process) -> Failure {
        let what = process.line.failure().unwrap_or_else(|| "ended".into());
        self.take_out();
        process.line.hang_up();
        what
    }

    /// The host ends it: it was told to, or is killed.
    fn ended(&self, mut process: Process) -> End {
        let until = Instant::now() + EXIT;
        let mut left = if self.state().ending {
            EXIT
        } else {
            Duration::ZERO
        };
        while !left.is_zero() {
            let (seen, _) = look(&mut [&mut process], &self.wake, &self.log, Some(left));
            if seen.iter().any(|seen| seen.ended.is_some()) {
                break;
            }
            left = until.saturating_duration_since(Instant::now());
        }
        self.take_out();
        drop(process);
        End::Asked
    }

    /// Ends a worker that was replaced while it still answers, after its last call. Its callers
    /// learn of it if it dies before.
    fn retire(self: &Arc<Self>, process: Process) {
        let limit = Instant::now() + self.cells.config.drain(self.log.plugin());
        let cell = Arc::clone(self);
        let retire = move |mut process: Process| {
            let line = Arc::clone(&process.line);
            loop {
                let left = limit.saturating_duration_since(Instant::now());
                let limit = due(&process).map_or(left, |due| due.min(left));
                let mut worker = [&mut process];
                let (seen, is_unused) = look(&mut worker, &line.unused, &cell.log, Some(limit));
                let is_over = seen.iter().any(|seen| cell.is_over(worker[0], seen));
                if is_unused || is_over || left.is_zero() {
                    break;
                }
            }
            line.note_end("was replaced after a panic");
            drop(process);
        };
        if let Err((error, process)) = threads::give("retire", process, retire) {
            tracing::error!("failed to start a thread, a worker is ended at once: {error}");
            drop(process);
        }
    }
}

impl Seen {
    /// Whether the worker has nothing more to say, and its end is near if it is honest.
    fn is_last_word(&self) -> bool {
        self.hung_up || self.signal.is_some()
    }
}

/// When a worker must be looked at though nothing happens.
fn due(process: &Process) -> Option<Duration> {
    let left = |end: Instant| end.saturating_duration_since(Instant::now());
    let abandoned = process.line.caller.abandoned_due();
    let tick = abandoned.map(|due| until(due) + TICK);
    process.end_by.map(left).into_iter().chain(tick).min()
}

/// Whether a call goes on though nobody has waited for it for too long.
fn hangs(line: &Line) -> bool {
    let for_too_long = |due| Duration::from_nanos(now_ns().saturating_sub(due)) > GRACE;
    line.caller.abandoned_due().is_some_and(for_too_long)
}

/// Notes what the worker dies of, and says whether it is dead: its own report names the place,
/// the kernel the fact.
fn note_end(process: &Process, seen: &Seen) -> bool {
    if let Some(report) = &seen.signal {
        process.line.note_end(report.describe(&process.line.caller));
    }
    if let Some(ended) = &seen.ended {
        process
            .line
            .note_end(failure::ended(ended, &process.limits));
    }
    seen.ended.is_some()
}

/// How long until a point on the monotonic clock in nanoseconds.
fn until(point_ns: u64) -> Duration {
    Duration::from_nanos(point_ns.saturating_sub(now_ns()))
}
