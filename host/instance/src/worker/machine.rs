//! The life of one plugin version in worker processes, as a pure function:
//! `(machine, event, time) → steps`.
//!
//! There are at most two processes: the *current* one, which takes the calls, and the *next* one,
//! which is being started. After a crash there is no current one; after a panic the current one
//! continues to answer until the next one replaces it.
//!
//! Processes, threads and clocks stay outside: the code that carries out the steps reports the result of
//! them by further events, and asks [`Machine::due`] when to come back without one.

use std::time::{Duration, Instant};

use hotmerge_meta::PluginName;

use crate::{
    failure::Failure,
    settings::RestartConfig,
    spawn::RETRY,
    worker::{
        error::End,
        restarts::{Restarts, Verdict, too_often},
    },
};

/// How long a process may take to end after the request to exit.
pub(super) const EXIT: Duration = Duration::from_secs(1);

/// An observation, a request, or the result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// There is no next process, which is no fault of the plugin's.
    NotLaunched(String),
    /// The next process ended, or the plugin did not start in it.
    NotStarted(String),
    /// The plugin has started in the next process.
    Started,
    /// The current process died, or was killed for its behaviour.
    Died(Failure),
    /// A panic was caught in the current process, which still answers.
    Panicked(Failure),
    /// The time that [`Machine::due`] named has come.
    Due,
    /// The plugin is being torn down: whatever happens to the current process is its end.
    TearDown,
    /// Everything is to end.
    Stop,
    /// A request to try again although it was given up.
    Retry,
}

/// A step to carry out. Their order matters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Step {
    /// Start the next process; answer with `NotLaunched`, `NotStarted` or `Started`.
    Launch,
    /// End the next process; `NotStarted` follows.
    Abort,
    /// Let no new calls reach the current process.
    TakeOut,
    /// End the current process, if it has not ended, and fail the calls that are on it.
    End,
    /// End the current process after its last call.
    Retire,
    /// Make the next process the current one.
    GoLive,
    /// Tell the host.
    Tell(News),
}

/// A report to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The current process crashed, or a panic was caught in it, or it was not replaced.
    Crashed(Failure),
    /// Another process takes the calls.
    Restarted,
    /// Crashed too often.
    GivenUp(String),
    /// Tried again on request.
    Revived,
    /// The system cannot provide a process; reported once until it can.
    NoProcess(String),
    /// The current process died before the next one could take its place.
    DiedBeforeReplaced(Failure),
}

/// What callers find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// A process is being started; it is worth to wait for it.
    Starting,
    /// A process takes calls.
    Serving,
    /// The process crashed; the next one is started after a pause.
    Restarting(String),
    /// It crashed too often.
    GivenUp(String),
    /// It was ended, or never started.
    Ended(End),
}

#[derive(Clone, Debug)]
enum Phase {
    /// The first process is being started.
    First,
    /// The current process takes calls.
    Serving,
    /// The next process is started after a pause.
    Pausing {
        replacing: Replacing,
        until: Instant,
        /// Whether callers are turned away meanwhile.
        is_shown: bool,
    },
    /// The next process is being started.
    Replacing(Replacing),
    /// The system provides no process; it is asked again at this time.
    Waiting {
        replacing: Replacing,
        until: Instant,
        reason: String,
    },
    /// Crashed too often.
    GivenUp(String),
    /// The current process was asked to exit, and is killed then if it has not.
    Exiting(Instant),
    /// All is over.
    Ended(End),
}

/// A process that crashed, or is to be replaced.
#[derive(Clone, Debug)]
struct Replacing {
    cause: Failure,
    /// Whether the current process still answers.
    has_current: bool,
    /// Whether it was reported to the host that the system provides no process.
    has_waited: bool,
}

/// The life of one plugin version in worker processes.
#[derive(Debug)]
pub(super) struct Machine {
    plugin: PluginName,
    config: RestartConfig,
    restarts: Restarts,
    phase: Phase,
    is_torn_down: bool,
    is_stopped: bool,
}

impl Machine {
    /// Begins with the start of the first process.
    pub(super) fn begin(plugin: PluginName, config: RestartConfig) -> (Self, Vec<Step>) {
        let machine = Self {
            plugin,
            config,
            restarts: Restarts::new(config),
            phase: Phase::First,
            is_torn_down: false,
            is_stopped: false,
        };
        (machine, vec![Step::Launch])
    }

    /// What callers find at this moment.
    pub(super) fn availability(&self) -> Availability {
        match &self.phase {
            Phase::First => Availability::Starting,
            Phase::Serving | Phase::Exiting(_) => Availability::Serving,
            Phase::Pausing { replacing, .. }
            | Phase::Replacing(replacing)
            | Phase::Waiting { replacing, .. }
                if replacing.has_current =>
            {
                Availability::Serving
            }
            Phase::Pausing {
                replacing,
                is_shown: true,
                ..
            } => Availability::Restarting(replacing.cause.to_string()),
            Phase::Pausing { .. } | Phase::Replacing(_) => Availability::Starting,
            Phase::Waiting {
                replacing, reason, ..
            } => Availability::Restarting(no_process(&replacing.cause, reason)),
            Phase::GivenUp(reason) => Availability::GivenUp(reason.clone()),
            Phase::Ended(end) => Availability::Ended(end.clone()),
        }
    }

    /// Why there is no next process yet, if that is the system's fault.
    pub(super) fn waits_for_system(&self) -> Option<&str> {
        match &self.phase {
            Phase::Waiting { reason, .. } => Some(reason),
            Phase::First
            | Phase::Serving
            | Phase::Pausing { .. }
            | Phase::Replacing(_)
            | Phase::GivenUp(_)
            | Phase::Exiting(_)
            | Phase::Ended(_) => None,
        }
    }

    /// When [`Event::Due`] is expected, if it is.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Exiting(until) => Some(until),
            // A process that still answers may be in the middle of its teardown.
            Phase::Pausing { until, .. } | Phase::Waiting { until, .. } => {
                (!self.is_torn_down).then_some(until)
            }
            Phase::First
            | Phase::Serving
            | Phase::Replacing(_)
            | Phase::GivenUp(_)
            | Phase::Ended(_) => None,
        }
    }

    /// Whether all is over.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Whether [`Event::TearDown`] has come.
    pub(super) fn is_torn_down(&self) -> bool {
        self.is_torn_down
    }

    /// Whether [`Event::Stop`] has come.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Takes an event; returns what is to be done.
    pub(super) fn on(&mut self, event: Event, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        match event {
            Event::NotLaunched(reason) => self.not_launched(reason, now),
            Event::NotStarted(reason) => self.not_started(reason, now, &mut steps),
            Event::Started => self.started(now, &mut steps),
            Event::Died(failure) => self.died(failure, now, &mut steps),
            Event::Panicked(failure) => {
                if matches!(self.phase, Phase::Serving) {
                    self.crashed(failure, true, now, &mut steps);
                }
            }
            Event::Due => self.on_due(now, &mut steps),
            Event::TearDown => {
                self.is_torn_down = true;
                self.end_if_nothing_answers();
            }
            Event::Stop => self.stop(now, &mut steps),
            Event::Retry => self.retry(&mut steps),
        }
        // TransitionText as soon as it is known, which is when the phase has changed.
        if let Phase::Waiting {
            replacing, reason, ..
        } = &mut self.phase
            && !std::mem::replace(&mut replacing.has_waited, true)
        {
            let reason = no_process(&replacing.cause, reason);
            steps.push(Step::Tell(News::NoProcess(reason)));
        }
        steps
    }

    fn not_launched(&mut self, reason: String, now: Instant) {
        match &self.phase {
            Phase::First => self.phase = Phase::Ended(End::NotLaunched(reason)),
            Phase::Replacing(replacing) => {
                self.phase = Phase::Waiting {
                    replacing: replacing.clone(),
                    until: now + RETRY,
                    reason,
                };
                self.end_if_nothing_answers();
            }
            Phase::Serving
            | Phase::Pausing { .. }
            | Phase::Waiting { .. }
            | Phase::GivenUp(_)
            | Phase::Exiting(_)
            | Phase::Ended(_) => {}
        }
    }

    fn not_started(&mut self, reason: String, now: Instant, steps: &mut Vec<Step>) {
        match &self.phase {
            Phase::First => self.phase = Phase::Ended(End::NotStarted(reason)),
            Phase::Replacing(replacing) if self.is_stopped => {
                if replacing.has_current {
                    steps.extend([Step::TakeOut, Step::End]);
                }
                self.phase = Phase::Ended(End::Asked);
            }
            Phase::Replacing(replacing) => {
                let cause = Failure::from(format!("was not replaced: {reason}"));
                let has_current = replacing.has_current;
                self.crashed(cause, has_current, now, steps);
                self.end_if_nothing_answers();
            }
            Phase::Serving
            | Phase::Pausing { .. }
            | Phase::Waiting { .. }
            | Phase::GivenUp(_)
            | Phase::Exiting(_)
            | Phase::Ended(_) => {}
        }
    }

    fn started(&mut self, now: Instant, steps: &mut Vec<Step>) {
        match &self.phase {
            Phase::First => {}
            Phase::Replacing(replacing) => {
                // A caller that sees the count gets its answer from the next one.
                steps.extend([Step::TakeOut, Step::Tell(News::Restarted)]);
                if replacing.has_current {
                    steps.push(Step::Retire);
                }
            }
            Phase::Serving
            | Phase::Pausing { .. }
            | Phase::Waiting { .. }
            | Phase::GivenUp(_)
            | Phase::Exiting(_)
            | Phase::Ended(_) => return,
        }
        steps.push(Step::GoLive);
        self.phase = Phase::Serving;
        if self.is_stopped {
            self.stop(now, steps);
        }
    }

    fn died(&mut self, failure: Failure, now: Instant, steps: &mut Vec<Step>) {
        match &mut self.phase {
            Phase::Serving => {
                steps.extend([Step::TakeOut, Step::End]);
                if self.is_torn_down {
                    self.phase = Phase::Ended(End::Asked);
                } else {
                    self.crashed(failure, false, now, steps);
                }
            }
            Phase::Exiting(_) => {
                steps.extend([Step::TakeOut, Step::End]);
                self.phase = Phase::Ended(End::Asked);
            }
            Phase::Pausing { replacing, .. }
            | Phase::Replacing(replacing)
            | Phase::Waiting { replacing, .. } => {
                replacing.has_current = false;
                steps.extend([Step::TakeOut, Step::End]);
                // In its teardown it was asked to end.
                if !self.is_torn_down {
                    steps.push(Step::Tell(News::DiedBeforeReplaced(failure)));
                }
                self.end_if_nothing_answers();
            }
            Phase::First | Phase::GivenUp(_) | Phase::Ended(_) => {}
        }
    }

    fn on_due(&mut self, now: Instant, steps: &mut Vec<Step>) {
        if self.due().is_none_or(|due| now < due) {
            return;
        }
        match &self.phase {
            Phase::Exiting(_) => {
                steps.extend([Step::TakeOut, Step::End]);
                self.phase = Phase::Ended(End::Asked);
            }
            Phase::Pausing { replacing, .. } | Phase::Waiting { replacing, .. } => {
                steps.push(Step::Launch);
                self.phase = Phase::Replacing(replacing.clone());
            }
            Phase::First
            | Phase::Serving
            | Phase::Replacing(_)
            | Phase::GivenUp(_)
            | Phase::Ended(_) => {}
        }
    }

    fn stop(&mut self, now: Instant, steps: &mut Vec<Step>) {
        self.is_stopped = true;
        let has_current = match &self.phase {
            Phase::First | Phase::Replacing(_) => return steps.push(Step::Abort),
            Phase::Serving if self.is_torn_down => {
                self.phase = Phase::Exiting(now + EXIT);
                return;
            }
            Phase::Exiting(_) | Phase::Ended(_) => return,
            Phase::Serving => true,
            Phase::Pausing { replacing, .. } | Phase::Waiting { replacing, .. } => {
                replacing.has_current
            }
            Phase::GivenUp(_) => false,
        };
        if has_current {
            steps.extend([Step::TakeOut, Step::End]);
        }
        self.phase = Phase::Ended(End::Asked);
    }

    fn retry(&mut self, steps: &mut Vec<Step>) {
        let replacing = match &self.phase {
            Phase::GivenUp(reason) => {
                steps.push(Step::Tell(News::Revived));
                Replacing {
                    cause: Failure::from(reason.as_str()),
                    has_current: false,
                    has_waited: false,
                }
            }
            Phase::Pausing { replacing, .. } | Phase::Waiting { replacing, .. } => {
                replacing.clone()
            }
            Phase::First
            | Phase::Serving
            | Phase::Replacing(_)
            | Phase::Exiting(_)
            | Phase::Ended(_) => return,
        };
        steps.push(Step::Launch);
        self.phase = Phase::Replacing(replacing);
    }

    /// The current process is to be replaced; `has_current` says whether it still answers.
    fn crashed(&mut self, cause: Failure, has_current: bool, now: Instant, steps: &mut Vec<Step>) {
        steps.push(Step::Tell(News::Crashed(cause.clone())));
        match self.restarts.crashed(now) {
            Verdict::After(pause) => {
                let replacing = Replacing {
                    cause,
                    has_current,
                    has_waited: false,
                };
                self.phase = if pause.is_zero() {
                    steps.push(Step::Launch);
                    Phase::Replacing(replacing)
                } else {
                    Phase::Pausing {
                        replacing,
                        until: now + pause,
                        is_shown: !has_current,
                    }
                };
            }
            Verdict::Enough => {
                // A process that still answers after panics is no longer trusted either.
                if has_current {
                    steps.extend([Step::TakeOut, Step::Retire]);
                }
                let reason = too_often(self.config, &self.plugin, &cause);
                steps.push(Step::Tell(News::GivenUp(reason.clone())));
                self.phase = Phase::GivenUp(reason);
            }
        }
    }

    /// While a plugin is torn down nothing is started any more.
    fn end_if_nothing_answers(&mut self) {
        let is_idle = match &self.phase {
            Phase::Pausing { replacing, .. } | Phase::Waiting { replacing, .. } => {
                !replacing.has_current
            }
            Phase::GivenUp(_) => true,
            Phase::First
            | Phase::Serving
            | Phase::Replacing(_)
            | Phase::Exiting(_)
            | Phase::Ended(_) => false,
        };
        if self.is_torn_down && is_idle {
            self.phase = Phase::Ended(End::Asked);
        }
    }
}

fn no_process(cause: &Failure, reason: &str) -> String {
    format!("{cause}, and no replacement could start yet: {reason}")
}

#[cfg(test)]
mod tests;
