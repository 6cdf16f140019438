//! A plugin's candidate: verified, started, perhaps tried on a share of the calls, then live or refused.
//!
//! Invariant: a candidate either comes to exactly one outcome or is abandoned.
//!
//! Absent on purpose: other plugins. The [`Machine`](crate::Machine) decides whether a verified
//! candidate may start.

use std::sync::Arc;

use crate::{
    Action, Later, Next, Now, Outcome, Refused, Stage, Target, Ticket, Why,
    slot::{Attempt, Candidate, Live, Slot},
};

/// After so many candidates in a row that a newer one overtook, the next is left to start: a
/// directory that changes all the time must not keep the old version for ever. Few in the tests
/// of this crate, so that random orders get there.
const MOST_OVERTAKEN: u32 = if cfg!(test) { 2 } else { 8 };

impl Attempt {
    /// A request stays a request, even if the directory has changed since.
    fn inherit(&mut self, before: &Self) {
        if self.why == Why::Changed && before.why.is_asked() {
            self.why = before.why;
        }
    }
}

impl Slot {
    /// Whether an attempt must not disturb the candidate. An operator's request never waits
    /// for the directory's version.
    fn must_not_overtake(&self, why: Why) -> bool {
        match self.stage() {
            Some(Stage::HandingOver) => true,
            // These come to an end by themselves, and soon.
            Some(Stage::Verifying | Stage::Starting) => {
                why == Why::Changed && self.overtaken >= MOST_OVERTAKEN
            }
            Some(Stage::Settling | Stage::Waiting | Stage::Trying) | None => false,
        }
    }

    /// Begins an attempt, which overtakes a candidate in progress.
    pub(super) fn begin(&mut self, ticket: Ticket, mut attempt: Attempt, out: &mut Vec<Action>) {
        if self.must_not_overtake(attempt.why) {
            if let Some(before) = &self.deferred {
                attempt.inherit(before);
            }
            self.deferred = Some(attempt);
            return;
        }
        if let Some(old) = &self.candidate {
            attempt.inherit(&old.attempt);
            self.overtaken += 1;
        }
        attempt.target.takes_state &= !attempt.why.discards_state();
        // The current request of directory or operator is newer than the deferred one.
        if attempt.why.is_wanted() {
            self.deferred = None;
        }
        self.overtake(out);
        self.because(attempt.why.text());
        out.push(Now::Begin(ticket, attempt.target.clone()).into());
        out.push(Later::Verify(ticket).into());
        self.candidate = Some(Candidate {
            ticket,
            stage: Stage::Verifying,
            attempt,
            stale: None,
        });
    }

    /// Drops the candidate in favour of another attempt. If it was a restart of the live version,
    /// that version may still need one.
    fn overtake(&mut self, out: &mut Vec<Action>) {
        if let Some(why @ (Why::Replaced | Why::Crashed | Why::Reconfigured)) =
            self.candidate.as_ref().map(|old| old.attempt.why)
        {
            self.request_restart(why);
        }
        self.abandon(out);
    }

    /// File and meta agree. Whether the candidate may start is decided elsewhere.
    pub(super) fn verified(&mut self, ticket: Ticket, out: &mut Vec<Action>) {
        let Some(Candidate { attempt, .. }) = self.at(ticket, Stage::Verifying) else {
            return;
        };
        let Attempt {
            target: Target { meta, .. },
            why,
            choice,
        } = attempt.clone();
        let is_restart = matches!(why, Why::Replaced | Why::Crashed | Why::Reconfigured)
            || (why == Why::Asked && self.outdated);
        if !is_restart
            && let Some(live) = &mut self.live
            && live.meta.runs_as(&meta)
        {
            // A new version number over the same code.
            live.meta = meta;
            self.conclude("it is already running");
            self.clear_refusal();
            self.choice = choice;
            out.push(Now::Report(ticket, Outcome::Unchanged).into());
            out.push(Later::Persist.into());
            return;
        }
        match &self.refused {
            Some(refused)
                if why == Why::Changed && refused.lasting && refused.meta.hash == meta.hash =>
            {
                let outcome = Outcome::Refused(refused.clone());
                self.conclude("it was refused before");
                out.push(Now::Report(ticket, outcome).into());
            }
            Some(_) | None => self.advance(Stage::Waiting, "verified; waits for its requirements"),
        }
    }

    /// File and meta do not agree yet.
    pub(super) fn differs(&mut self, ticket: Ticket) {
        if self.at(ticket, Stage::Verifying).is_some() {
            self.advance(Stage::Settling, "its file and its meta do not match yet");
        }
    }

    /// The candidate's requirements are met.
    pub(super) fn start(&mut self, out: &mut Vec<Action>) {
        if let Some(Candidate {
            ticket,
            stage: Stage::Waiting,
            ..
        }) = self.candidate
        {
            self.advance(Stage::Starting, "verified, and its requirements are active");
            out.push(Later::Start(ticket).into());
        }
    }

    pub(super) fn started(&mut self, ticket: Ticket, next: Next, out: &mut Vec<Action>) {
        let Some(candidate) = self.at(ticket, Stage::Starting) else {
            out.push(Later::Discard(ticket).into());
            return;
        };
        let is_without = !candidate.attempt.target.takes_state && self.live.is_some();
        match next {
            Next::HandOver if self.live.is_some() => {
                self.advance(
                    Stage::HandingOver,
                    "started; calls wait while it takes over",
                );
                out.push(Later::HandOver(ticket).into());
            }
            Next::Try if self.live.is_some() => {
                self.overtaken = 0;
                self.advance(Stage::Trying, "started; it takes a share of the calls");
                out.push(Now::BeginTrial(ticket).into());
                out.push(Now::Report(ticket, Outcome::Trying).into());
            }
            Next::Switch | Next::HandOver | Next::Try if is_without => self.go_live(
                out,
                "started without the state of the version before it, and takes all new calls",
            ),
            Next::Switch | Next::HandOver | Next::Try => {
                self.go_live(out, "started, and takes all new calls");
            }
        }
    }

    pub(super) fn handed_over(&mut self, ticket: Ticket, out: &mut Vec<Action>) {
        if self.at(ticket, Stage::HandingOver).is_some() {
            self.go_live(out, "took over the state, and takes all new calls");
        } else {
            out.push(Later::Discard(ticket).into());
        }
    }

    pub(super) fn proven(&mut self, ticket: Ticket, calls: u64, out: &mut Vec<Action>) {
        if self.at(ticket, Stage::Trying).is_some() {
            let reason = match calls {
                0 => "no call came during its trial, and it takes all new calls",
                _ => "passed its trial, and takes all new calls",
            };
            self.go_live(out, reason);
        }
    }

    /// The candidate cannot run.
    pub(super) fn failed(&mut self, ticket: Ticket, refused: Refused, out: &mut Vec<Action>) {
        if self.current(ticket).is_some() {
            self.refuse(refused, out);
        }
    }

    /// The same attempt once more, without the live version's state, if it is under way and was to
    /// have it.
    pub(super) fn without_state(&self, ticket: Ticket) -> Option<Attempt> {
        let attempt = &self.current(ticket)?.attempt;
        let again = Attempt {
            why: Why::WithoutState,
            ..attempt.clone()
        };
        // Nobody wants a restarted version without its state.
        let is_restart = matches!(attempt.why, Why::Replaced | Why::Crashed);
        (attempt.target.takes_state && !is_restart).then_some(again)
    }

    /// The candidate cannot run because of other plugins.
    pub(super) fn block(&mut self, reason: String, out: &mut Vec<Action>) {
        if let Some(candidate) = &self.candidate {
            let meta = Arc::clone(&candidate.attempt.target.meta);
            let refused = Refused {
                meta,
                reason,
                lasting: false,
            };
            self.refuse(refused, out);
            self.blocked = true;
        }
    }

    fn refuse(&mut self, refused: Refused, out: &mut Vec<Action>) {
        let Some(candidate) = &self.candidate else {
            return;
        };
        let (ticket, stage) = (candidate.ticket, candidate.stage);
        let refused = match candidate.attempt.why {
            Why::Reconfigured if self.live.is_some() => Refused {
                reason: format!("with its new configuration: {}", refused.reason),
                ..refused
            },
            Why::Reconfigured
            | Why::Changed
            | Why::Asked
            | Why::AskedWithoutState
            | Why::WithoutState
            | Why::Chosen
            | Why::Unpinned
            | Why::Replaced
            | Why::Unblocked
            | Why::Fallback
            | Why::Crashed => refused,
        };
        // Report while the attempt is still known.
        let outcome = Outcome::Refused(refused.clone());
        out.push(Now::Report(candidate.ticket, outcome).into());
        self.overtaken = 0;
        if stage == Stage::HandingOver {
            out.push(Now::Resume.into());
            // It may be about to take the state over for ever.
            out.push(Later::BreakOff(ticket).into());
            self.candidate = None;
        } else {
            self.abandon(out);
        }
        self.because(refused.reason.clone());
        self.refused = Some(refused);
        self.blocked = false;
    }

    /// The directory does not have the plugin any more, or the host stops. What is live stays until
    /// those that require it have gone.
    pub(super) fn gone(&mut self, reason: &'static str, out: &mut Vec<Action>) {
        self.deferred = None;
        self.overtaken = 0;
        if self.stage() != Some(Stage::HandingOver) {
            self.overtake(out);
        }
        self.because(reason);
        self.clear_refusal();
    }

    fn go_live(&mut self, out: &mut Vec<Action>, reason: &'static str) {
        let Some(Candidate {
            ticket,
            attempt,
            stale,
            ..
        }) = self.candidate.take()
        else {
            return;
        };
        self.overtaken = 0;
        self.restart = stale;
        let refused = self.refused.as_ref().map(|refused| refused.meta.hash);
        let is_other = refused != Some(attempt.target.meta.hash);
        // The replacement of a crashed instance has the settings of that instance.
        let is_outdated = self.outdated && attempt.why == Why::Crashed;
        if is_outdated && is_other {
            self.restart.get_or_insert(Why::Reconfigured);
        }
        self.outdated = is_outdated || stale == Some(Why::Reconfigured);
        self.because(reason);
        // These do not affect a refusal.
        let keeps = match attempt.why {
            Why::Replaced | Why::Fallback | Why::Crashed => true,
            Why::Reconfigured => is_other,
            Why::Changed
            | Why::Asked
            | Why::AskedWithoutState
            | Why::WithoutState
            | Why::Chosen
            | Why::Unpinned
            | Why::Unblocked => false,
        };
        if !keeps {
            self.clear_refusal();
        }
        self.choice = attempt.choice;
        self.generations += 1;
        let old = self.live.replace(Live {
            ticket,
            meta: attempt.target.meta,
            generation: self.generations,
            given_up: false,
        });
        out.push(Now::Switch(ticket).into());
        let outcome = match old {
            Some(old) => {
                let hash = old.meta.hash;
                self.drain(old.ticket, old.meta, out);
                Outcome::Reloaded(hash)
            }
            None => Outcome::Loaded,
        };
        out.push(Now::Report(ticket, outcome).into());
        out.push(Later::Persist.into());
    }

    /// Drops the candidate at any stage.
    pub(super) fn abandon(&mut self, out: &mut Vec<Action>) {
        let Some(candidate) = self.candidate.take() else {
            return;
        };
        match candidate.stage {
            // Its job is under way and will answer.
            Stage::Verifying | Stage::HandingOver => {}
            // Its code may never return.
            Stage::Starting => out.push(Later::BreakOff(candidate.ticket).into()),
            Stage::Settling | Stage::Waiting => out.push(Now::Forget(candidate.ticket).into()),
            Stage::Trying => {
                out.push(Now::EndTrial(candidate.ticket).into());
                self.drain(candidate.ticket, candidate.attempt.target.meta, out);
            }
        }
    }

    fn conclude(&mut self, reason: &'static str) {
        self.candidate = None;
        self.overtaken = 0;
        self.because(reason);
    }

    fn advance(&mut self, stage: Stage, reason: &'static str) {
        if let Some(candidate) = &mut self.candidate {
            candidate.stage = stage;
        }
        self.because(reason);
    }
}
