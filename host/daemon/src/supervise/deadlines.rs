//! What has taken too long and what is due, checked by the clock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hotmerge_instance::Isolation;
use hotmerge_lifecycle::{Event, Refused, Stage, Ticket};
use hotmerge_meta::PluginName;

use crate::{
    Config,
    supervise::{
        bring_up::all_the_same,
        clock::RECHECK,
        state::{Attempt, HostState, Progress},
        supervisor::Supervisor,
    },
};

/// A worker that does not start is ended with a reason this long before its waiting thread is given up.
const WORKERS_FIRST: Duration = Duration::from_secs(1);

/// A canary is judged by its failures after this number of calls; fewer say little …
const CALLS_THAT_TELL: u64 = 100;
/// … unless this number of them has failed.
const FAILURES_THAT_TELL: u64 = 10;

/// What the clock finds about one candidate.
enum Due {
    /// Nothing is due before this time.
    Later(Instant),
    /// It failed.
    Fail {
        reason: String,
        /// Whether the same bytes would take too long again.
        lasting: bool,
        /// Whether a thread still runs its code.
        runs: bool,
        /// Whether it waited for the running version's state.
        hands_over: bool,
    },
    /// It passed its trial.
    Proven { calls: u64 },
}

impl Supervisor {
    /// Notes since when a candidate's file and meta differ.
    pub(crate) fn differs(self: &Arc<Self>, name: &PluginName, ticket: Ticket, reason: String) {
        let now = Instant::now();
        let mut state = self.state();
        if state.candidate(name).is_some_and(|(it, ..)| it == ticket) {
            let first = (now, String::new());
            state.differing.entry(name.clone()).or_insert(first).1 = reason;
        }
        drop(state);
        self.apply(name, Event::Differs { ticket });
        self.state().forget(name, ticket);
        self.clock
            .wake_at(now + RECHECK.min(self.config().settle()));
    }

    /// How long a candidate's thread may take to start it.
    pub(crate) fn start_limit(&self, name: &PluginName, config: &Config) -> Duration {
        let limit = config.start();
        match self.workers.isolation(name.as_str()) {
            Ok(Isolation::Process) => limit + WORKERS_FIRST,
            Ok(Isolation::Host | Isolation::Auto) | Err(_) => limit,
        }
    }

    /// Gives up candidates that took too long, and lets those go live that passed their trial.
    pub(crate) fn expire(self: &Arc<Self>) {
        let now = Instant::now();
        let mut next = [
            self.attend(now),
            self.background.retry(self, now),
            self.make_room(now),
            self.persist_again(now),
        ]
        .into_iter()
        .flatten()
        .min();
        let mut events = Vec::new();
        let state = self.state();
        for name in &state.active {
            let Some((ticket, stage, attempt)) = state.candidate(name) else {
                continue;
            };
            match self.due(&state, name, stage, attempt, now) {
                None => {}
                Some(Due::Later(due)) => next = Some(next.map_or(due, |other| other.min(due))),
                Some(Due::Proven { calls }) => {
                    events.push((name.clone(), Event::Proven { ticket, calls }, false));
                }
                Some(Due::Fail {
                    reason,
                    lasting,
                    runs,
                    hands_over,
                }) => {
                    let refused = Refused {
                        meta: Arc::clone(&attempt.target.meta),
                        reason,
                        lasting,
                    };
                    let event = match hands_over {
                        true => self.unless_discarded(attempt, ticket, refused),
                        false => Event::Failed { ticket, refused },
                    };
                    events.push((name.clone(), event, runs));
                }
            }
        }
        drop(state);
        for (name, event, runs) in events {
            let ticket = event.ticket();
            if runs {
                self.write_off(&name, ticket);
            }
            self.apply(&name, event);
            // A thread that still runs its code returns later, and forgets it then.
            if !runs {
                self.state().forget(&name, ticket);
            }
        }
        if let Some(next) = next {
            self.clock.wake_at(next);
        }
    }

    fn due(
        &self,
        state: &HostState,
        name: &PluginName,
        stage: Stage,
        attempt: &Attempt,
        now: Instant,
    ) -> Option<Due> {
        match stage {
            Stage::Settling => {
                let (since, reason) = state.differing.get(name)?;
                Some(if now < *since + self.config().settle() {
                    Due::Later(now + RECHECK)
                } else {
                    Due::Fail {
                        reason: reason.clone(),
                        lasting: false,
                        runs: false,
                        hands_over: false,
                    }
                })
            }
            Stage::Starting => {
                let Progress::Starting(since) = attempt.progress else {
                    return None;
                };
                let until = since + self.start_limit(name, &attempt.config);
                Some(overtime(until, now, false, || {
                    let ms = attempt.config.start().as_millis();
                    let follows = self.what_follows(name);
                    format!("it did not start within {ms} ms; {follows}")
                }))
            }
            Stage::HandingOver => {
                let Progress::HandingOver(Some(until)) = attempt.progress else {
                    return None;
                };
                let ms = attempt.config.handover(name).as_millis();
                Some(overtime(until, now, true, || {
                    let follows = self.what_follows(name);
                    let advice = all_the_same(name);
                    format!("its state was not handed over within {ms} ms; {follows}{advice}")
                }))
            }
            Stage::Trying => self.judge(name, attempt, now),
            Stage::Verifying | Stage::Waiting => None,
        }
    }

    /// What becomes of a candidate whose code does not return.
    fn what_follows(&self, name: &PluginName) -> &'static str {
        match self.workers.isolation(name.as_str()) {
            Ok(Isolation::Process) => "its worker is ended",
            Ok(Isolation::Host | Isolation::Auto) | Err(_) => {
                "the host stopped waiting for it, and keeps its thread"
            }
        }
    }

    /// Judges a version by its share of the calls.
    fn judge(&self, name: &PluginName, attempt: &Attempt, now: Instant) -> Option<Due> {
        let Progress::Trying(until) = attempt.progress else {
            return None;
        };
        let canary = attempt.config.canary(name)?;
        let (calls, failed) = self.plugin(name.as_str())?.canary_counts();
        let is_bad = failed as f64 > canary.max_error_rate * calls as f64;
        let is_clear = calls >= CALLS_THAT_TELL || failed >= FAILURES_THAT_TELL;
        Some(if is_bad && (is_clear || now >= until) {
            Due::Fail {
                reason: format!(
                    "{failed} of the {calls} calls in its trial failed, more than {} %",
                    canary.max_error_rate * 100.0
                ),
                lasting: true,
                runs: false,
                hands_over: false,
            }
        } else if now >= until {
            Due::Proven { calls }
        } else {
            Due::Later(until.min(now + RECHECK))
        })
    }
}

fn overtime(
    deadline: Instant,
    now: Instant,
    hands_over: bool,
    reason: impl FnOnce() -> String,
) -> Due {
    if now < deadline {
        return Due::Later(deadline);
    }
    Due::Fail {
        reason: reason(),
        lasting: true,
        runs: true,
        hands_over,
    }
}
