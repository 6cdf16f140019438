//! The thread of a worker: carries out what the machine decides, and feeds it what it observes.
//!
//! It sleeps in one place ([`Life::observe`]), for everything that can happen.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    spawn,
    upward::Report,
    worker::{
        calls::Worker,
        error::{LaunchError, NotStarted},
        machine::{Event, Machine, News, Step},
        process::{Callers, Observed, Process, poll_all},
        signs::due,
    },
};

/// What a plugin does between its start and its first call, as a clause that follows "while".
const STARTED: &str = "it was about to take calls";

/// The processes of a worker, and the machine that decides about them.
struct Life {
    worker: Arc<Worker>,
    machine: Machine,
    /// Takes the calls.
    current: Option<Process>,
    /// Is being started, or has just been.
    next: Option<Process>,
    /// The start of the plugin in the next process.
    starting: Option<Starting>,
    /// Results of steps, to be handled before anything else.
    events: VecDeque<Event>,
}

/// The start of a plugin, on a thread of its own.
struct Starting {
    began: Instant,
    thread: JoinHandle<Result<Vec<String>, NotStarted>>,
    /// Set before the thread ends and wakes the worker's.
    has_answered: Arc<AtomicBool>,
}

impl Worker {
    /// Runs until the worker is to end.
    pub(super) fn run(self: Arc<Self>) {
        let restart = self.workers.settings().restart;
        let (machine, steps) = Machine::begin(self.log.plugin().clone(), restart);
        let mut life = Life {
            worker: self,
            machine,
            current: None,
            next: None,
            starting: None,
            events: VecDeque::new(),
        };
        life.carry_out(steps);
        while !life.machine.has_ended() {
            match life.events.pop_front() {
                Some(event) => life.handle(event),
                None => life.observe(),
            }
        }
    }
}

impl Life {
    fn handle(&mut self, event: Event) {
        tracing::trace!(
            target: "hotmerge::worker",
            plugin = %self.worker.log.plugin(),
            ?event,
            "an event of its worker"
        );
        let steps = self.machine.on(event, Instant::now());
        // Before the steps: a thread that learns of them then sees the current state.
        self.worker
            .publish(self.machine.availability(), self.machine.waits_for_system());
        self.carry_out(steps);
    }

    fn carry_out(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Launch => self.launch(),
                Step::Abort => {
                    if let Some(next) = &self.next {
                        next.link.record_end("was ended");
                        next.kill();
                    }
                }
                Step::TakeOut => self.worker.take_out(),
                Step::End => drop(self.current.take()),
                Step::Retire => {
                    if let Some(process) = self.current.take() {
                        retire(&self.worker, process);
                    }
                }
                Step::GoLive => {
                    if let Some(next) = self.next.take() {
                        self.worker.go_live(Callers::of(&next.link));
                        self.current = Some(next);
                    }
                }
                Step::Tell(news) => self.tell(news),
            }
        }
    }

    fn tell(&self, news: News) {
        let worker = &self.worker;
        match news {
            News::Crashed(failure) => {
                worker.workers.crash_signals();
                let state_age = worker.checkpoint.age();
                worker.upward.report(Report::Crashed { failure, state_age });
            }
            News::Restarted => worker.upward.report(Report::Restarted {
                state_age: worker.checkpoint.age(),
            }),
            News::GivenUp(reason) => worker.upward.report(Report::GivenUp { reason }),
            News::Revived => worker.upward.report(Report::Revived),
            News::NoProcess(what) => worker.upward.report(Report::NotRestartedYet { what }),
            News::DiedBeforeReplaced(failure) => {
                worker.upward.report(Report::DiedWhileReplaced { failure });
            }
        }
    }

    /// Starts the next process and the plugin in it, while the current one continues.
    fn launch(&mut self) {
        match start(&self.worker) {
            Ok((process, starting)) => {
                self.next = Some(process);
                self.starting = Some(starting);
            }
            Err(error) => self.events.push_back(match error.is_the_plugins() {
                true => Event::NotStarted(error.to_string()),
                false => Event::NotLaunched(error.to_string()),
            }),
        }
    }

    /// Sleeps until something has happened, and queues it.
    fn observe(&mut self) {
        if self.take_requests() {
            return;
        }
        let starting = self.starting.as_ref();
        let has_answered = starting.is_some_and(|it| it.has_answered.load(Ordering::SeqCst));
        // By then the effects of the plugin on its process before its answer are visible.
        let wait = match has_answered && !self.next_is_ending() {
            true => Some(Duration::ZERO),
            false => self
                .machine
                .due()
                .map(|due| due.saturating_duration_since(Instant::now())),
        };
        let mut processes = Vec::new();
        processes.extend(self.next.as_mut());
        let has_next = !processes.is_empty();
        processes.extend(self.current.as_mut());
        let mut seen = self.worker.observe(&mut processes, wait);
        let next_is_over = has_next && seen.remove(0).1;
        self.note_current(seen.pop());
        // One that is about to end is over soon, and then it is known of what.
        if next_is_over || has_answered && !self.next_is_ending() {
            self.conclude_start();
        }
        if self.machine.due().is_some_and(|due| due <= Instant::now()) {
            self.events.push_back(Event::Due);
        }
    }

    fn next_is_ending(&self) -> bool {
        let next = self.next.as_ref();
        next.is_some_and(|next| next.end_by.is_some())
    }

    /// Queues pending requests; returns whether there were any.
    fn take_requests(&mut self) -> bool {
        let mut state = self.worker.state();
        if state.ending && !self.machine.is_torn_down() {
            self.events.push_back(Event::TearDown);
        }
        if state.stop && !self.machine.is_stopped() {
            self.events.push_back(Event::Stop);
        }
        if std::mem::take(&mut state.revive) {
            self.events.push_back(Event::Retry);
        }
        !self.events.is_empty()
    }

    /// Queues what was seen of the current process, after what was asked for until then: a
    /// process that was told to end may have ended before this thread knew that it was told.
    fn note_current(&mut self, seen: Option<(Observed, bool)>) {
        self.take_requests();
        if let Some((observed, is_over)) = seen {
            self.judge_current(&observed, is_over);
        }
    }

    fn judge_current(&mut self, observed: &Observed, is_over: bool) {
        let Some(current) = &self.current else { return };
        if is_over {
            let failure = current.link.failure().unwrap_or_else(|| "ended".into());
            self.events.push_back(Event::Died(failure));
        } else if let Some(failure) = &observed.panic
            && current.end_by.is_none()
        {
            self.events.push_back(Event::Panicked(failure.clone()));
        }
    }

    /// The next process has ended, or the plugin in it has answered.
    fn conclude_start(&mut self) {
        let (Some(process), Some(starting)) = (&self.next, self.starting.take()) else {
            return;
        };
        let link = Arc::clone(&process.link);
        if link.end().is_some() {
            // So that waiting threads learn that it is over.
            link.hang_up();
        }
        let outcome = starting.thread.join().unwrap_or(Err(NotStarted::Panicked));
        let outcome = outcome.and_then(|missing| match link.failure() {
            Some(end) => Err(NotStarted::Ended(end.or_during(Some(STARTED.to_owned())))),
            None => Ok(missing),
        });
        self.events.push_back(match outcome {
            Ok(missing) => {
                tracing::trace!(
                    target: "hotmerge::worker",
                    pid = link.pid,
                    ?missing,
                    "the sandbox is in place, and the plugin has started in it"
                );
                self.worker.has_started(missing, starting.began.elapsed());
                Event::Started
            }
            Err(error) => {
                self.next = None;
                Event::NotStarted(error.to_string())
            }
        });
    }
}

/// Starts a process, and has the plugin started in it.
///
/// # Errors
/// The resource that the system lacks.
fn start(worker: &Arc<Worker>) -> Result<(Process, Starting), LaunchError> {
    let began = Instant::now();
    let process = worker.launch()?;
    let pid = process.link.pid;
    tracing::trace!(target: "hotmerge::worker", pid, "the process runs and enters its sandbox");
    if let Some(error) = process.watched.failure() {
        let reason = error.to_string();
        worker.upward.report(Report::MemoryUnwatched { reason });
    }
    worker.forward_calls(&process.link)?;
    let has_answered = Arc::new(AtomicBool::new(false));
    let ask = {
        let (worker, link) = (Arc::clone(worker), Arc::clone(&process.link));
        let has_answered = Arc::clone(&has_answered);
        move || {
            let outcome = worker.start_plugin(&link);
            has_answered.store(true, Ordering::SeqCst);
            worker.wake_up();
            outcome
        }
    };
    let thread = thread::Builder::new()
        .name("start".into())
        .spawn(ask)
        .map_err(LaunchError::at("start a thread"))?;
    let starting = Starting {
        began,
        thread,
        has_answered,
    };
    Ok((process, starting))
}

/// Ends a process that was replaced while it still answers, after its last call. Its callers
/// learn of it if it dies before.
fn retire(worker: &Arc<Worker>, process: Process) {
    let settings = worker.workers.settings();
    let limit = Instant::now() + settings.of(worker.meta.name.as_str()).drain;
    let this = Arc::clone(worker);
    let retire = move |mut process: Process| {
        let link = Arc::clone(&process.link);
        loop {
            let left = limit.saturating_duration_since(Instant::now());
            let wait = due(&process).map_or(left, |due| due.min(left));
            let mut processes = [&mut process];
            let (seen, is_unused) = poll_all(&mut processes, &link.unused, &this.log, Some(wait));
            let is_over = seen.iter().any(|seen| this.is_over(processes[0], seen));
            if is_unused || is_over || left.is_zero() {
                break;
            }
        }
        link.record_end("was replaced after a panic");
        drop(process);
    };
    if let Err((error, process)) = spawn::give("retire", process, retire) {
        let reason = error.to_string();
        worker.upward.report(Report::EndedEarly { reason });
        drop(process);
    }
}

#[cfg(test)]
mod tests;
