//! One plugin: at most one candidate, one live version, and old ones that are ending.
//!
//! Invariant: a version is in exactly one of these places from its start to its end, and
//! the actions that move it are emitted where the fields change.
//!
//! Absent on purpose: how they change, which `candidate`, `live`, `old` and `choices` know; and other
//! plugins.

use std::{borrow::Cow, sync::Arc};

use hotmerge_meta::PluginMeta;

use crate::{Choice, Ending, PluginState, Refused, Stage, Target, Ticket, Why};

/// Why a plugin that the directory had leaves.
pub(super) const GONE: &str = "gone from the plugin directory";
/// Why all plugins leave in the end.
pub(super) const STOPPED: &str = "the host stops";

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) ticket: Ticket,
    pub(super) stage: Stage,
    pub(super) attempt: Attempt,
    /// Why it must start anew once it is live, if it must: something that it started with was
    /// replaced since.
    pub(super) stale: Option<Why>,
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
    pub(super) overtaken: u32,
    pub(super) live: Option<Live>,
    pub(super) retiring: Vec<Old>,
    pub(super) refused: Option<Refused>,
    /// Whether other plugins caused the refusal, so that it is lifted when they change.
    pub(super) blocked: bool,
    /// Why the live version must restart, if it must: something that it started with was
    /// replaced, or it crashed.
    pub(super) restart: Option<Why>,
    /// Whether the live version runs with other settings than those in force.
    pub(super) outdated: bool,
    pub(super) choice: Option<Choice>,
    pub(super) generations: u64,
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
    pub fn why(&self) -> Option<Why> {
        Some(self.candidate.as_ref()?.attempt.why)
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

    pub(super) fn current(&self, ticket: Ticket) -> Option<&Candidate> {
        self.candidate
            .as_ref()
            .filter(|candidate| candidate.ticket == ticket)
    }

    pub(super) fn at(&self, ticket: Ticket, stage: Stage) -> Option<&Candidate> {
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
