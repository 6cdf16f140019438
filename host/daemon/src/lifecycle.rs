//! The life of one plugin as a pure function: `(slot, event) → actions`.
//!
//! Threads, clocks and files stay outside: whoever runs the actions tells what came of
//! them by further events. Tickets tell attempts apart, so that a late answer about an
//! attempt that was overtaken changes nothing but its own ending.
//!
//! Invariants, each held by a property test below:
//!
//! * at most one candidate and one live version;
//! * only a version that has started goes live, and the one it replaces drains from then;
//! * every version that started is ended exactly once;
//! * a refused hash is not tried again until somebody asks or the hash changes.

use std::fmt;

use hotmerge_meta::Digest;
use serde::{Deserialize, Serialize};

/// Tells the attempts to bring a version up apart. Never used twice in a host's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The state of a plugin as its users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Known, and nothing of it runs or is under way.
    Idle,
    /// A change was seen and is being verified, or has not settled yet.
    Detecting,
    /// The plugin is gone from the directory and its last version is ending.
    Unloading,
    /// A verified version is starting.
    Reloading,
    /// A version takes calls.
    Active,
    /// No version takes calls, and the last one that was tried was refused.
    Error,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Detecting => "detecting",
            Self::Unloading => "unloading",
            Self::Reloading => "reloading",
            Self::Active => "active",
            Self::Error => "error",
        })
    }
}

/// A version that takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// The attempt that brought it up.
    pub ticket: Ticket,
    /// What it runs.
    pub hash: Digest,
    /// Counts the versions that went live, from 1.
    pub generation: u64,
}

/// How far a candidate is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Its file is being read and compared.
    Verifying,
    /// Its file and its meta do not belong together yet.
    Settling,
    /// Its bytes were verified; it is being loaded and started.
    Starting(Digest),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    ticket: Ticket,
    stage: Stage,
}

/// A version that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What was refused.
    pub hash: Digest,
    /// Why, for people.
    pub reason: String,
    /// Whether the same hash would be refused again, so that it is not tried unasked.
    pub lasting: bool,
}

/// How far an old version has come towards its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Calls are still running on it.
    Draining,
    /// Calls are still running on it, longer than they should.
    Overdue,
    /// It is being torn down.
    TearingDown,
    /// Its teardown has not returned in time; it is kept.
    Stuck,
}

/// What happened to a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The directory has something that was not looked at yet.
    Changed {
        /// The attempt to look at it.
        ticket: Ticket,
        /// Whether a refused hash is to be tried again.
        retry: bool,
    },
    /// File and meta agree.
    Verified {
        /// The attempt.
        ticket: Ticket,
        /// What they agree on.
        hash: Digest,
    },
    /// File and meta do not agree (yet).
    Differs {
        /// The attempt.
        ticket: Ticket,
    },
    /// The candidate cannot run, or has taken too long over it.
    Failed {
        /// The attempt.
        ticket: Ticket,
        /// What was refused, and why.
        refused: Refused,
    },
    /// The candidate is loaded, started and has checked itself.
    Started {
        /// The attempt.
        ticket: Ticket,
    },
    /// The directory does not have the plugin any more.
    Gone,
    /// The last call on an old version has returned.
    Drained {
        /// The attempt that had brought it up.
        ticket: Ticket,
    },
    /// An old version's end takes longer than it may.
    Late {
        /// The attempt that had brought it up.
        ticket: Ticket,
    },
    /// An old version is no more.
    Ended {
        /// The attempt that had brought it up.
        ticket: Ticket,
    },
}

/// What is to be done now. The order counts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Read and compare; answer with `Verified`, `Differs` or `Failed`.
    Verify(Ticket),
    /// Load and start; answer with `Started` or `Failed`.
    Start(Ticket),
    /// Let the started candidate take all new calls. Cannot fail.
    Switch(Ticket),
    /// Let nothing take new calls. Cannot fail.
    Withdraw,
    /// Wait for the last call on it, answer with `Drained` (and `Late` if it takes too long).
    Drain(Ticket),
    /// Tear it down, answer with `Ended` (and `Late` if it takes too long).
    End(Ticket),
    /// End a version that never took a call. No answer is expected.
    Discard(Ticket),
    /// Tell what came of an attempt (for a removal: the one that had brought it up).
    Report(Ticket, Outcome),
}

/// What came of a change, for those who asked and for the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A first version went live.
    Loaded,
    /// A new version replaced this one.
    Reloaded(Digest),
    /// The file changed and what runs did not.
    Unchanged,
    /// The change was refused; what ran before still runs.
    Refused(Refused),
    /// The plugin was taken out of service.
    Removed(Digest),
}

/// One plugin of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    candidate: Option<Candidate>,
    retry: bool,
    live: Option<Live>,
    endings: Vec<(Ticket, Ending)>,
    refused: Option<Refused>,
    generations: u64,
}

impl Slot {
    /// What a user sees.
    pub fn state(&self) -> State {
        match (&self.candidate, &self.live) {
            (Some(candidate), _) => match candidate.stage {
                Stage::Verifying | Stage::Settling => State::Detecting,
                Stage::Starting(_) => State::Reloading,
            },
            (None, Some(_)) => State::Active,
            (None, None) if self.refused.is_some() => State::Error,
            (None, None) if !self.endings.is_empty() => State::Unloading,
            (None, None) => State::Idle,
        }
    }

    /// The version that takes calls.
    pub fn live(&self) -> Option<Live> {
        self.live
    }

    /// The last version that was refused, if none has gone live since.
    pub fn refused(&self) -> Option<&Refused> {
        self.refused.as_ref()
    }

    /// The old versions that have not ended yet.
    pub fn endings(&self) -> &[(Ticket, Ending)] {
        &self.endings
    }

    /// Whether an attempt is under way that will end in an outcome by itself.
    pub fn is_busy(&self) -> bool {
        self.candidate.is_some()
    }

    /// The attempt that is under way.
    pub fn candidate(&self) -> Option<Ticket> {
        self.candidate.as_ref().map(|candidate| candidate.ticket)
    }

    /// Whether anything of the slot still depends on an attempt.
    pub fn refers_to(&self, ticket: Ticket) -> bool {
        self.is_current(ticket)
            || self.live.is_some_and(|live| live.ticket == ticket)
            || self.endings.iter().any(|(other, _)| *other == ticket)
    }

    /// Whether the candidate waits for its file and meta to agree.
    pub fn is_settling(&self) -> bool {
        matches!(&self.candidate, Some(candidate) if candidate.stage == Stage::Settling)
    }

    /// Whether nothing of the plugin is left.
    pub fn is_empty(&self) -> bool {
        self.candidate.is_none()
            && self.live.is_none()
            && self.endings.is_empty()
            && self.refused.is_none()
    }

    /// Applies one event. Events about attempts that are not current any more are answered
    /// with no more than the ending of what they brought up.
    pub fn apply(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Changed { ticket, retry } => self.changed(ticket, retry),
            Event::Verified { ticket, hash } => self.verified(ticket, hash),
            Event::Differs { ticket } => self.differs(ticket),
            Event::Failed { ticket, refused } => self.failed(ticket, refused),
            Event::Started { ticket } => self.started(ticket),
            Event::Gone => self.gone(),
            Event::Drained { ticket } => self.drained(ticket),
            Event::Late { ticket } => self.late(ticket),
            Event::Ended { ticket } => self.ended(ticket),
        }
    }

    fn changed(&mut self, ticket: Ticket, retry: bool) -> Vec<Action> {
        self.retry |= retry;
        self.candidate = Some(Candidate {
            ticket,
            stage: Stage::Verifying,
        });
        vec![Action::Verify(ticket)]
    }

    fn verified(&mut self, ticket: Ticket, hash: Digest) -> Vec<Action> {
        if !self.is_current(ticket) {
            return Vec::new();
        }
        if self.live.is_some_and(|live| live.hash == hash) {
            self.settle();
            self.refused = None;
            return vec![Action::Report(ticket, Outcome::Unchanged)];
        }
        match &self.refused {
            Some(refused) if refused.lasting && refused.hash == hash && !self.retry => {
                let outcome = Outcome::Refused(refused.clone());
                self.settle();
                vec![Action::Report(ticket, outcome)]
            }
            _ => {
                self.candidate = Some(Candidate {
                    ticket,
                    stage: Stage::Starting(hash),
                });
                vec![Action::Start(ticket)]
            }
        }
    }

    fn differs(&mut self, ticket: Ticket) -> Vec<Action> {
        if let Some(candidate) = self.candidate.as_mut()
            && candidate.ticket == ticket
        {
            candidate.stage = Stage::Settling;
        }
        Vec::new()
    }

    fn failed(&mut self, ticket: Ticket, refused: Refused) -> Vec<Action> {
        if !self.is_current(ticket) {
            return Vec::new();
        }
        self.settle();
        self.refused = Some(refused.clone());
        vec![Action::Report(ticket, Outcome::Refused(refused))]
    }

    fn started(&mut self, ticket: Ticket) -> Vec<Action> {
        let Some(Candidate {
            stage: Stage::Starting(hash),
            ..
        }) = self.candidate.clone().filter(|now| now.ticket == ticket)
        else {
            return vec![Action::Discard(ticket)];
        };
        self.settle();
        self.refused = None;
        self.generations += 1;
        let old = self.live.replace(Live {
            ticket,
            hash,
            generation: self.generations,
        });
        let mut actions = vec![Action::Switch(ticket)];
        let outcome = match old {
            Some(old) => {
                self.endings.push((old.ticket, Ending::Draining));
                actions.push(Action::Drain(old.ticket));
                Outcome::Reloaded(old.hash)
            }
            None => Outcome::Loaded,
        };
        actions.push(Action::Report(ticket, outcome));
        actions
    }

    fn gone(&mut self) -> Vec<Action> {
        self.settle();
        self.refused = None;
        let Some(old) = self.live.take() else {
            return Vec::new();
        };
        self.endings.push((old.ticket, Ending::Draining));
        vec![
            Action::Withdraw,
            Action::Drain(old.ticket),
            Action::Report(old.ticket, Outcome::Removed(old.hash)),
        ]
    }

    fn drained(&mut self, ticket: Ticket) -> Vec<Action> {
        match self.ending(ticket) {
            Some(ending @ (Ending::Draining | Ending::Overdue)) => {
                *ending = Ending::TearingDown;
                vec![Action::End(ticket)]
            }
            _ => Vec::new(),
        }
    }

    fn late(&mut self, ticket: Ticket) -> Vec<Action> {
        if let Some(ending) = self.ending(ticket) {
            *ending = match *ending {
                Ending::Draining | Ending::Overdue => Ending::Overdue,
                Ending::TearingDown | Ending::Stuck => Ending::Stuck,
            };
        }
        Vec::new()
    }

    fn ended(&mut self, ticket: Ticket) -> Vec<Action> {
        self.endings.retain(|(other, _)| *other != ticket);
        Vec::new()
    }

    fn is_current(&self, ticket: Ticket) -> bool {
        self.candidate
            .as_ref()
            .is_some_and(|candidate| candidate.ticket == ticket)
    }

    fn settle(&mut self) {
        self.candidate = None;
        self.retry = false;
    }

    fn ending(&mut self, ticket: Ticket) -> Option<&mut Ending> {
        self.endings
            .iter_mut()
            .find(|(other, _)| *other == ticket)
            .map(|(_, ending)| ending)
    }
}

#[cfg(test)]
mod tests;
