//! The life of the plugins as a pure function: `(machine, event) → steps`.
//!
//! Threads, clocks and files stay outside: whoever carries out the steps tells what came of
//! them by further events. Tickets tell attempts apart, so that a late answer about an
//! attempt that was overtaken changes nothing but its own ending.
//!
//! One [`Slot`] is one plugin; the [`Machine`] holds all of them, and knows what the plugin
//! directory says, what an operator chose instead, and who requires whom. Slots can only be
//! changed through it, and only by these events, so that no transition can be written that
//! is not here.
//!
//! Invariants, each held by the property test below over random orders of events:
//!
//! * at most one candidate and one live version a plugin;
//! * only a version that has started goes live, and the one it replaces drains from then;
//! * calls wait only while state changes hands, and every such pause ends;
//! * every version that started is ended exactly once, and never while it is live;
//! * a call begins on the version that is current, and that is there until the call has ended;
//! * a refused hash is not tried again until somebody asks or the hash changes;
//! * a plugin starts after what it requires and stops before it;
//! * a live version that crashed is replaced or given up, and never forgotten;
//! * when nothing is under way any more, nothing waits.

#![forbid(unsafe_code)]

use std::{borrow::Cow, fmt, sync::Arc};

use hotmerge_meta::{Digest, PackageName, PluginMeta, PluginName};

mod choices;
mod machine;
mod old;
mod requirements;
mod slot;

pub use choices::ChoiceError;
pub use hotmerge_meta::control::{Stage, State};
pub use machine::{Machine, set};
pub use slot::{Live, Old, Slot};

/// Tells the attempts to bring a version up apart. Never used twice in a host's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

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

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draining => "draining",
            Self::Overdue => "overdue",
            Self::TearingDown => "teardown",
            Self::Stuck => "stuck",
        })
    }
}

/// What is to run, and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What its meta says.
    pub meta: Arc<PluginMeta>,
    /// Where its bytes are.
    pub origin: Origin,
    /// Whether it takes over the state of the version that runs; an operator may choose a
    /// version that cannot, and lose the state.
    pub takes_state: bool,
    /// Whether an operator ordered it: it is switched to without a trial.
    pub is_ordered: bool,
}

impl Target {
    /// A version that the store has, with the state of the one that runs.
    fn kept(meta: Arc<PluginMeta>) -> Self {
        Self {
            meta,
            origin: Origin::Store,
            takes_state: true,
            is_ordered: false,
        }
    }
}

/// Where the bytes of a version are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In this package of the plugin directory.
    Package(PackageName),
    /// In the host's own store.
    Store,
    /// In the instance that runs, which came from this package.
    Running(Option<PackageName>),
}

impl Origin {
    /// The package that it came from, if it did.
    pub fn package(&self) -> Option<&PackageName> {
        match self {
            Self::Package(package) => Some(package),
            Self::Running(package) => package.as_ref(),
            Self::Store => None,
        }
    }
}

/// A version that an operator chose over the one in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The version.
    pub meta: Arc<PluginMeta>,
    /// Whether it stays whatever the directory says.
    pub pinned: bool,
    /// The hash in the directory that was rolled back: the choice stands while it is there.
    pub instead_of: Option<Digest>,
}

impl Choice {
    /// Whether it stands against what the directory has.
    pub fn stands_against(&self, found: &Digest) -> bool {
        self.meta.hash != *found && (self.pinned || self.instead_of == Some(*found))
    }
}

/// Why an attempt was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The directory has something that was not looked at yet.
    Changed,
    /// Somebody asked, so that a refused hash is tried again.
    Asked,
    /// An operator chose the version.
    Chosen,
    /// An operator took a pin out, so that the directory decides again. As if somebody asked.
    Unpinned,
    /// A plugin that it requires was replaced, and it is to be started anew then.
    Replaced,
    /// What it was refused for is settled: a plugin that it requires is there.
    Unblocked,
    /// At the host's start, the directory's version was refused: the last good one instead.
    Fallback,
    /// The live instance crashed: another one of the same version instead.
    Crashed,
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Self::Changed => "the plugin directory has changed",
            Self::Asked => "somebody asked to try it again",
            Self::Chosen => "an operator chose this version",
            Self::Unpinned => "an operator took the pin out",
            Self::Replaced => "a plugin that it requires was replaced",
            Self::Unblocked => "the plugins that it requires have changed",
            Self::Fallback => "the version in the directory was refused; back to the last good one",
            Self::Crashed => "the running instance crashed; another one takes its place",
        }
    }
}

/// A version that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What was refused.
    pub meta: Arc<PluginMeta>,
    /// Why, for people.
    pub reason: String,
    /// Whether the same hash would be refused again, so that it is not tried unasked.
    pub lasting: bool,
}

/// What is to follow the start of a candidate, if a version is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It takes over at once.
    Switch,
    /// It takes over the state first, while calls wait.
    HandOver,
    /// It takes a share of the calls first.
    Try,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// File and meta agree.
    Verified {
        /// The attempt.
        ticket: Ticket,
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
        /// What is to follow.
        next: Next,
    },
    /// The candidate has the state of the live version.
    HandedOver {
        /// The attempt.
        ticket: Ticket,
    },
    /// The candidate did well with its share of the calls.
    Proven {
        /// The attempt.
        ticket: Ticket,
        /// How many calls that were.
        calls: u64,
    },
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
    /// A version that takes calls crashed, or a panic of it was caught.
    Crashed {
        /// The attempt that had brought it up.
        ticket: Ticket,
        /// What happened, for people.
        what: String,
    },
    /// A version that crashed is to be replaced by another instance of it. (One in a process
    /// of its own sees to that itself.)
    Replace {
        /// The attempt that had brought it up.
        ticket: Ticket,
    },
    /// A version has crashed too often: it takes no calls, and is not started again unasked.
    GivenUp {
        /// The attempt that had brought it up.
        ticket: Ticket,
        /// Why, for people.
        reason: String,
    },
    /// Somebody asked for a version that was given up: it takes calls again.
    Revived {
        /// The attempt that had brought it up.
        ticket: Ticket,
    },
}

impl Event {
    /// The attempt it is about.
    pub fn ticket(&self) -> Ticket {
        match self {
            Self::Verified { ticket }
            | Self::Differs { ticket }
            | Self::Failed { ticket, .. }
            | Self::Started { ticket, .. }
            | Self::HandedOver { ticket }
            | Self::Proven { ticket, .. }
            | Self::Drained { ticket }
            | Self::Late { ticket }
            | Self::Ended { ticket }
            | Self::Crashed { ticket, .. }
            | Self::Replace { ticket }
            | Self::GivenUp { ticket, .. }
            | Self::Revived { ticket } => *ticket,
        }
    }
}

/// What is to be done with one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Step {
    /// Which plugin.
    pub plugin: PluginName,
    /// What.
    pub action: Action,
}

/// What is to be done. The order counts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// At once, before anybody else sees the machine.
    Now(Now),
    /// On a thread, which comes back with the next event.
    Later(Later),
}

/// What cannot fail and takes no time: it is done under the lock that the machine is under.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Now {
    /// Remember that an attempt has begun.
    Begin(Ticket, Target),
    /// The state did not change hands: let the live version take calls again.
    Resume,
    /// Give the candidate a share of the calls; answer with `Proven` or `Failed`.
    BeginTrial(Ticket),
    /// Give the candidate no calls any more.
    EndTrial(Ticket),
    /// Let the started candidate take all new calls.
    Switch(Ticket),
    /// Let nothing take new calls.
    Withdraw,
    /// Forget an attempt of which nothing has started.
    Forget(Ticket),
    /// Tell what came of an attempt (for a removal: the one that had brought it up).
    Report(Ticket, Outcome),
    /// Tell of a transition.
    Note(Note),
}

/// What may fail or take time: it is handed to a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Later {
    /// Read and compare; answer with `Verified`, `Differs` or `Failed`.
    Verify(Ticket),
    /// Load and start; answer with `Started` or `Failed`.
    Start(Ticket),
    /// Let calls wait, and hand the live version's state to the candidate; answer with
    /// `HandedOver` or `Failed`, within the time that calls may wait.
    HandOver(Ticket),
    /// Wait for the last call on it, answer with `Drained` (and `Late` if it takes too long).
    Drain(Ticket),
    /// Tear it down, answer with `Ended` (and `Late` if it takes too long).
    End(Ticket),
    /// End a version that never took a call. No answer is expected.
    Discard(Ticket),
    /// Write down what runs and what was chosen, or that nothing is. No answer is expected.
    Persist,
}

impl From<Now> for Action {
    fn from(now: Now) -> Self {
        Self::Now(now)
    }
}

impl From<Later> for Action {
    fn from(later: Later) -> Self {
        Self::Later(later)
    }
}

/// A transition of a plugin, or of one of its old versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Of the plugin.
    Plugin {
        /// Where it was.
        from: (State, Option<Stage>),
        /// Where it is.
        to: (State, Option<Stage>),
        /// Why.
        reason: Cow<'static, str>,
    },
    /// What runs of the plugin crashed.
    Crash {
        /// Where the plugin was, and still is.
        at: (State, Option<Stage>),
        /// What happened.
        what: String,
    },
    /// Of an old version; `None` is before and after its ending.
    Old {
        /// What it ran.
        hash: Digest,
        /// Where it was.
        from: Option<Ending>,
        /// Where it is.
        to: Option<Ending>,
    },
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
    /// A new version takes a share of the calls.
    Trying,
    /// The change was refused; what ran before still runs.
    Refused(Refused),
    /// The directory decides again, and what it has stays out all the same; what ran before
    /// still runs.
    StaysOut(Refused),
    /// The plugin was taken out of service: the directory does not have it any more.
    Removed(Digest),
    /// The plugin was taken out of service: the host stops.
    Stopped(Digest),
}

/// Why a plugin is taken out of service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The directory does not have it any more.
    Gone,
    /// The host stops.
    Stopped,
    /// Something that it requires is not there any more.
    Unmet(String),
}

/// Whether a verified candidate may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What it requires is active.
    Go,
    /// Something that it requires, or would disturb, is still being decided.
    Wait,
    /// It cannot run with the plugins there are, and why.
    No(String),
}

#[cfg(test)]
mod tests;
