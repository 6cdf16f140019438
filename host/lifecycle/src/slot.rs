//! One plugin: at most one candidate, one live version, and old ones that are ending.
//!
//! Invariant: a version is in exactly one of these places from its start to its end, and
//! the actions that move it are emitted where the fields change.
//!
//! Absent on purpose: other plugins. The [`Machine`](crate::Machine) decides whether a verified
//! candidate may start.

use std::{borrow::Cow, sync::Arc};

use hotmerge_meta::{OnReplace, PluginMeta, PluginName};

use crate::{
    Action, Choice, Ending, Later, Next, Note, Now, Outcome, PluginState, Reconfigured, Refused,
    Stage, Target, Ticket, Why,
};

/// Why a plugin that the directory had leaves.
pub(super) const GONE: &str = "gone from the plugin directory";
/// Why all plugins leave in the end.
pub(super) const STOPPED: &str = "the host stops";

/// After so many candidates in a row that a newer one overtook, the next is left to start: a
/// directory that changes all the time must not keep the old version for ever. Few in the tests
/// of this crate, so that random orders get there.
const MOST_OVERTAKEN: u32 = if cfg!(test) { 2 } else { 8 };

/// A version that takes calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The attempt that brought it up.
    pub ticket: Ticket,
    /// What it runs.
    pub meta: Arc<PluginMeta>,
    /// Counts the versions that went live, from 1.
    pub generation: u64,
    /// Whether it crashed too often and takes no calls.
    pub given_up: bool,
}

/// An attempt to bring a version up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) target: Target,
    pub(super) why: Why,
    /// The choice that applies once it is live.
    pub(super) choice: Option<Choice>,
}

impl Attempt {
    /// What was asked for stays asked for, although the directory has changed since.
    fn inherit(&mut self, before: &Self) {
        if self.why == Why::Changed && before.why.is_asked() {
            self.why = before.why;
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) ticket: Ticket,
    pub(super) stage: Stage,
    pub(super) attempt: Attempt,
    /// Why it must start anew once it is live, if it must: something that it started with was
    /// replaced since.
    stale: Option<Why>,
}

/// A version that takes no new calls and has not ended yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Old {
    /// The attempt that had brought it up.
    pub ticket: Ticket,
    /// What it ran.
    pub meta: Arc<PluginMeta>,
    /// Its progress.
    pub ending: Ending,
}

impl Old {
    /// Whether it is not overdue.
    pub(super) fn is_in_time(&self) -> bool {
        matches!(self.ending, Ending::Draining | Ending::TearingDown)
    }
}

/// One plugin of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub(super) candidate: Option<Candidate>,
    /// An attempt that arrived while another must not be disturbed: during a hand-over, or after
    /// many that were overtaken.
    pub(super) deferred: Option<Attempt>,
    /// How many candidates in a row were overtaken before they came to anything.
    overtaken: u32,
    pub(super) live: Option<Live>,
    pub(super) retiring: Vec<Old>,
    pub(super) refused: Option<Refused>,
    /// Whether other plugins caused the refusal, so that it is lifted when they change.
    pub(super) blocked: bool,
    /// Why the live version must restart, if it must: something that it started with was
    /// replaced, or it crashed.
    restart: Option<Why>,
    /// Whether the live version runs with other settings than those in force.
    outdated: bool,
    pub(super) choice: Option<Choice>,
    generations: u64,
    pub(super) reason: Cow<'static, str>,
}

impl Slot {
    pub(super) fn new(choice: Option<Choice>) -> Self {
        Self {
            choice,
            ..Self::default()
        }
    }

    /// The state that users see.
    pub fn state(&self) -> PluginState {
        match (self.stage(), &self.live) {
            (Some(Stage::Verifying | Stage::Settling | Stage::Waiting), _) => {
                PluginState::Detecting
            }
            (Some(Stage::Starting | Stage::HandingOver | Stage::Trying), _) => {
                PluginState::Reloading
            }
            (None, Some(live)) if live.given_up => PluginState::Error,
            (None, Some(_)) => PluginState::Active,
            (None, None) if self.refused.is_some() => PluginState::Error,
            (None, None) if !self.retiring.is_empty() => PluginState::Unloading,
            (None, None) => PluginState::Idle,
        }
    }

    /// The candidate's stage, if there is one.
    pub fn stage(&self) -> Option<Stage> {
        self.candidate.as_ref().map(|candidate| candidate.stage)
    }

    /// The reason for this state.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The version that takes calls.
    pub fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    /// The last version that was refused, if none has gone live since.
    pub fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    /// The old versions that have not ended yet.
    pub fn retiring(&self) -> &[Old] {
        &self.retiring
    }

    /// The operator's choice, which overrides the directory.
    pub fn choice(&self) -> Option<&Choice> {
        self.choice.as_ref()
    }

    /// Whether an attempt is in progress that will soon reach an outcome by itself.
    pub fn is_busy(&self) -> bool {
        self.deferred.is_some() || self.stage().is_some_and(|stage| stage != Stage::Trying)
    }

    /// The attempt in progress and its target.
    pub fn candidate(&self) -> Option<(Ticket, &Target)> {
        let candidate = self.candidate.as_ref()?;
        Some((candidate.ticket, &candidate.attempt.target))
    }

    /// Why the attempt that is under way was made.
    pub fn why(&self) -> Option<&'static str> {
        Some(self.candidate.as_ref()?.attempt.why.text())
    }

    /// The same, in one word for programs.
    pub fn cause(&self) -> Option<&'static str> {
        Some(self.candidate.as_ref()?.attempt.why.name())
    }

    /// What is to be brought up once the state has changed hands.
    pub fn deferred(&self) -> Option<&Target> {
        Some(&self.deferred.as_ref()?.target)
    }

    /// How many candidates in a row a newer one has overtaken.
    pub fn overtaken(&self) -> u32 {
        self.overtaken
    }

    /// Whether a deferred attempt must wait for the candidate to get further.
    pub(super) fn holds_back(&self) -> bool {
        matches!(
            self.stage(),
            Some(Stage::Verifying | Stage::Waiting | Stage::Starting | Stage::HandingOver)
        )
    }

    /// Whether an attempt must leave the candidate in peace. What an operator wants never waits
    /// for what the directory had.
    fn must_let_on(&self, why: Why) -> bool {
        match self.stage() {
            Some(Stage::HandingOver) => true,
            // These come to an end by themselves, and soon.
            Some(Stage::Verifying | Stage::Starting) => {
                why == Why::Changed && self.overtaken >= MOST_OVERTAKEN
            }
            _ => false,
        }
    }

    /// Whether anything of the slot still depends on an attempt.
    pub fn refers_to(&self, ticket: Ticket) -> bool {
        self.current(ticket).is_some()
            || self.live.as_ref().is_some_and(|live| live.ticket == ticket)
            || self.retiring.iter().any(|old| old.ticket == ticket)
    }

    /// Whether nothing of the plugin is left.
    pub(super) fn is_empty(&self) -> bool {
        self.candidate.is_none()
            && self.deferred.is_none()
            && self.live.is_none()
            && self.retiring.is_empty()
            && self.refused.is_none()
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked && self.candidate.is_none() && self.deferred.is_none()
    }

    /// Other plugins no longer block it.
    pub(super) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Begins an attempt, which overtakes a candidate in progress.
    pub(super) fn begin(&mut self, ticket: Ticket, mut attempt: Attempt, out: &mut Vec<Action>) {
        if self.must_let_on(attempt.why) {
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
        // What the directory or an operator wants now is newer than what was deferred.
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

    /// A plugin that this one may require was replaced.
    pub(super) fn outdate(&mut self, replaced: &PluginName) {
        let keeps = |meta: &PluginMeta| {
            let mut requires = meta.requires.iter();
            requires.any(|it| it.name == *replaced && it.on_replace == OnReplace::Reload)
        };
        if self.live.as_ref().is_some_and(|live| keeps(&live.meta)) {
            self.request_restart(Why::Replaced);
        }
        if let Some(candidate) = &mut self.candidate {
            // Those that have not started yet will start with the new one.
            let has_started = candidate.stage > Stage::Waiting;
            if has_started && keeps(&candidate.attempt.target.meta) {
                candidate.stale = Some(Why::Replaced);
            }
        }
    }

    /// Other settings are in force. Returns whether the directory's version, if it is not the live
    /// one, is to be tried again.
    pub(super) fn reconfigured(&mut self, what: Reconfigured) -> bool {
        if let Some(candidate) = &mut self.candidate
            && candidate.stage > Stage::Waiting
        {
            candidate.stale = match candidate.stale {
                Some(Why::Replaced) => candidate.stale,
                _ => what.candidate.then_some(Why::Reconfigured),
            };
        }
        self.outdated = what.live;
        if what.live && what.changed {
            self.request_restart(Why::Reconfigured);
        } else if !what.live && self.restart == Some(Why::Reconfigured) {
            self.restart = None;
        }
        let live = self.live.as_ref().map(|live| live.meta.hash);
        let Some(refused) = self.refused.as_ref().map(|refused| refused.meta.hash) else {
            return false;
        };
        if live != Some(refused) {
            return what.changed && self.candidate.is_none();
        }
        if !what.live {
            // It was refused with settings that are gone, maybe in place of another refusal.
            self.clear_refusal();
        }
        !what.live && self.candidate.is_none()
    }

    /// Whether the live version runs with other settings than those in force.
    pub fn is_outdated(&self) -> bool {
        self.outdated && self.live.is_some()
    }

    /// The live version and the reason, if it must restart and nothing precedes that.
    pub(super) fn take_restart(&mut self) -> Option<(Arc<PluginMeta>, Why)> {
        let live = self.live.as_ref()?;
        if self.candidate.is_some() || self.deferred.is_some() {
            return None;
        }
        let why = self.restart.take()?;
        Some((Arc::clone(&live.meta), why))
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

    /// Requests a restart of the live version. A crash is the stronger reason: a crashed version
    /// cannot wait for the directory.
    fn request_restart(&mut self, why: Why) {
        if self.restart != Some(Why::Crashed) {
            self.restart = Some(why);
        }
    }

    fn live_at(&mut self, ticket: Ticket) -> Option<&mut Live> {
        self.live.as_mut().filter(|live| live.ticket == ticket)
    }

    /// The live version crashed, or a panic of it was caught.
    pub(super) fn crashed(&mut self, ticket: Ticket, what: String, out: &mut Vec<Action>) {
        if self.live_at(ticket).is_some() {
            let at = (self.state(), self.stage());
            out.push(Now::Note(Note::Crash { at, what }).into());
        }
    }

    /// A new instance must replace the live one.
    pub(super) fn replace(&mut self, ticket: Ticket) {
        if self.live_at(ticket).is_some() {
            self.request_restart(Why::Crashed);
        }
    }

    /// The live version crashed too often.
    pub(super) fn give_up(&mut self, ticket: Ticket, reason: String) {
        if let Some(live) = self.live_at(ticket) {
            live.given_up = true;
            self.restart = None;
            self.because(reason);
        }
    }

    /// The live version is tried again by hand.
    pub(super) fn revive(&mut self, ticket: Ticket) {
        if let Some(live) = self.live_at(ticket)
            && live.given_up
        {
            live.given_up = false;
            self.because("an operator asked to try it again");
        }
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
            _ => self.advance(Stage::Waiting, "verified; waits for its requirements"),
        }
    }

    /// File and meta do not agree yet.
    pub(super) fn differs(&mut self, ticket: Ticket) {
        if self.at(ticket, Stage::Verifying).is_some() {
            self.advance(Stage::Settling, "its file and its meta do not agree yet");
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
        // A restart of what runs is no version that anybody wants without its state.
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
        let stage = candidate.stage;
        let refused = match candidate.attempt.why {
            Why::Reconfigured if self.live.is_some() => Refused {
                reason: format!("with its new configuration: {}", refused.reason),
                ..refused
            },
            _ => refused,
        };
        // Report while the attempt is still known.
        let outcome = Outcome::Refused(refused.clone());
        out.push(Now::Report(candidate.ticket, outcome).into());
        self.overtaken = 0;
        if stage == Stage::HandingOver {
            out.push(Now::Resume.into());
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
        // What takes the place of a crashed instance has that one's settings.
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
            _ => false,
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
            Stage::Verifying | Stage::Starting | Stage::HandingOver => {}
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

    fn current(&self, ticket: Ticket) -> Option<&Candidate> {
        self.candidate
            .as_ref()
            .filter(|candidate| candidate.ticket == ticket)
    }

    fn at(&self, ticket: Ticket, stage: Stage) -> Option<&Candidate> {
        self.current(ticket)
            .filter(|candidate| candidate.stage == stage)
    }

    pub(super) fn clear_refusal(&mut self) {
        self.refused = None;
        self.blocked = false;
    }

    pub(super) fn because(&mut self, reason: impl Into<Cow<'static, str>>) {
        self.reason = reason.into();
    }
}
