//! The life cycle of plugins as a pure function: `(machine, event) → steps`.
//!
//! Threads, clocks and files stay outside: the caller carries out the steps and reports their
//! results as further events. Tickets distinguish attempts, so that a late answer about an
//! overtaken attempt affects only the end of that attempt.
//!
//! A [`Slot`] is one plugin; the [`Machine`] holds all slots, the contents of the plugin
//! directory, the operator's choices and the requirements. Slots change only through the
//! machine and only by these events, so that every transition is defined here.
//!
//! Invariants, which the property test below checks over random orders of events:
//!
//! * at most one candidate and one live version per plugin;
//! * only a version that has started goes live, and the one it replaces drains from then;
//! * calls wait only during a hand-over of state, and every such pause ends;
//! * every version that started is ended exactly once, and never while it is live;
//! * a call starts on the live version, which exists until the call has ended;
//! * a refused hash is not retried until an operator asks or the hash changes;
//! * a plugin starts after its requirements and stops before them;
//! * a live version that crashed is replaced or given up, and never forgotten;
//! * when nothing is in progress, nothing waits.

#![forbid(unsafe_code)]

use std::{borrow::Cow, fmt, sync::Arc};

use hotmerge_meta::{Digest, PackageName, PluginMeta, PluginName};

mod candidate;
mod choices;
mod live;
mod machine;
mod old;
mod requirements;
mod slot;

pub use choices::ChoiceError;
pub use hotmerge_meta::control::{PluginState, Stage};
pub use machine::{Machine, set};
pub use slot::{Live, Old, Slot};

/// Identifies an attempt to bring a version up. Never reused during a host's lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The progress of an old version towards its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Calls are still running on it.
    Draining,
    /// Calls still run on it after the drain time.
    Overdue,
    /// It is being torn down.
    TearingDown,
    /// Its teardown is overdue; the version is kept.
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

/// A version to run, and the location of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The contents of its meta.
    pub meta: Arc<PluginMeta>,
    /// Where its bytes are.
    pub origin: Origin,
    /// Whether it takes over the running version's state; an operator may choose a version
    /// that cannot, and lose the state.
    pub takes_state: bool,
    /// Whether an operator ordered it: it is switched to without a trial.
    pub is_ordered: bool,
}

impl Target {
    /// A stored version, which takes over the running version's state.
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
    /// In the running instance, which came from this package.
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
    /// Whether it stays regardless of the directory.
    pub pinned: bool,
    /// The rolled-back hash in the directory: the choice applies while it is there.
    pub instead_of: Option<Digest>,
}

impl Choice {
    /// Whether it overrides the version in the directory.
    pub fn stands_against(&self, found: &Digest) -> bool {
        self.meta.hash != *found && (self.pinned || self.instead_of == Some(*found))
    }

    /// Why the version in the directory does not run, and how to undo the choice.
    pub fn reason(&self, plugin: &PluginName, found: &Digest) -> String {
        if self.pinned {
            return format!(
                "{} is pinned; run `hotmerge unpin {plugin}` to follow the directory",
                self.meta.version
            );
        }
        let hash = found.short();
        format!(
            "{hash} was rolled back; stage another version, or run `hotmerge rollback {plugin} --to {hash}`"
        )
    }
}

/// Why an attempt was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The directory has a version that was not tried yet.
    Changed,
    /// An operator asked, so that a refused hash is retried.
    Asked,
    /// The same, and the running version's state is to be discarded.
    AskedWithoutState,
    /// The running version's state could not be handed over, and the operator lets it go.
    WithoutState,
    /// An operator chose the version.
    Chosen,
    /// An operator removed a pin, so that the directory decides again. Like a request.
    Unpinned,
    /// A plugin that it requires was replaced, and it must restart then.
    Replaced,
    /// The cause of its refusal is gone: a plugin that it requires is available.
    Unblocked,
    /// At the host's start, the directory's version was refused: the last good one instead.
    Fallback,
    /// The live instance crashed: another one of the same version instead.
    Crashed,
    /// The operator has changed its settings: another one of the same version instead.
    Reconfigured,
}

impl Why {
    /// Whether somebody asked for it.
    fn is_asked(self) -> bool {
        matches!(self, Self::Asked | Self::AskedWithoutState | Self::Unpinned)
    }

    /// Whether the directory's contents or an operator's choice are behind it, not what became of an
    /// earlier attempt.
    fn is_wanted(self) -> bool {
        let is_new = matches!(self, Self::Changed | Self::Chosen | Self::Unblocked);
        is_new || self.is_asked()
    }

    fn discards_state(self) -> bool {
        matches!(self, Self::AskedWithoutState | Self::WithoutState)
    }

    /// In one word, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Asked => "asked",
            Self::AskedWithoutState => "asked_without_state",
            Self::WithoutState => "without_state",
            Self::Chosen => "chosen",
            Self::Unpinned => "unpinned",
            Self::Replaced => "requirement_replaced",
            Self::Unblocked => "requirement_available",
            Self::Fallback => "fallback",
            Self::Reconfigured => "reconfigured",
            Self::Crashed => "crashed",
        }
    }

    /// In a sentence, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Changed => "the plugin directory has changed",
            Self::Asked => "an operator asked to try it again",
            Self::AskedWithoutState => {
                "an operator asked to try it again without the state of the running version"
            }
            Self::WithoutState => {
                "the state of the running version was not handed over, and may be discarded"
            }
            Self::Chosen => "an operator chose this version",
            Self::Unpinned => "an operator removed the pin",
            Self::Replaced => "a plugin that it requires was replaced",
            Self::Unblocked => "the plugins that it requires have changed",
            Self::Fallback => "the version in the directory was refused; back to the last good one",
            Self::Reconfigured => "its configuration has changed",
            Self::Crashed => "the running instance crashed; a replacement takes over",
        }
    }
}

/// How new settings affect one plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconfigured {
    /// The live version runs with others.
    pub live: bool,
    /// The candidate, if its code has been started, was started with others.
    pub candidate: bool,
    /// They are not those that were in force before.
    pub changed: bool,
}

/// A version that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What was refused.
    pub meta: Arc<PluginMeta>,
    /// Why, for people.
    pub reason: String,
    /// Whether the same hash would be refused again, so that it is retried only on request.
    pub lasting: bool,
}

/// What follows the start of a candidate if a version is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes live at once.
    Switch,
    /// It takes over the state first, while calls wait.
    HandOver,
    /// It takes a share of the calls first.
    Try,
}

/// The result of a step.
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
    /// The candidate cannot run, or took too long.
    Failed {
        /// The attempt.
        ticket: Ticket,
        /// What was refused, and why.
        refused: Refused,
    },
    /// The live version's state did not get to the candidate, and may be discarded: the same version
    /// is tried again without it.
    NotHandedOver {
        /// The attempt.
        ticket: Ticket,
        /// What was refused, and why.
        refused: Refused,
    },
    /// The candidate is loaded, started and has checked itself.
    Started {
        /// The attempt.
        ticket: Ticket,
        /// What follows.
        next: Next,
    },
    /// The candidate has taken over the live version's state.
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
    /// The end of an old version is overdue.
    Late {
        /// The attempt that had brought it up.
        ticket: Ticket,
    },
    /// An old version has ended.
    Ended {
        /// The attempt that had brought it up.
        ticket: Ticket,
    },
    /// A version that takes calls crashed, or a panic of it was caught.
    Crashed {
        /// The attempt that had brought it up.
        ticket: Ticket,
        /// A description of what happened, for people.
        what: String,
    },
    /// A crashed version needs a new instance. (A version in workers handles this itself.)
    Replace {
        /// The attempt that had brought it up.
        ticket: Ticket,
    },
    /// A version has crashed too often: it takes no calls and restarts only on request.
    GivenUp {
        /// The attempt that had brought it up.
        ticket: Ticket,
        /// Why, for people.
        reason: String,
    },
    /// An operator restarted a version that was given up: it takes calls again.
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
            | Self::NotHandedOver { ticket, .. }
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

/// A step for one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Step {
    /// Which plugin.
    pub plugin: PluginName,
    /// What.
    pub action: Action,
}

/// An action. The order matters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// At once, before any other thread sees the machine.
    Now(Now),
    /// On a thread, which comes back with the next event.
    Later(Later),
}

/// An action that cannot fail or block: it runs under the machine's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Now {
    /// Remember that an attempt has begun.
    Begin(Ticket, Target),
    /// The hand-over failed: let the live version take calls again.
    Resume,
    /// Give the candidate a share of the calls; answer with `Proven` or `Failed`.
    BeginTrial(Ticket),
    /// Stop giving calls to the candidate.
    EndTrial(Ticket),
    /// Let the started candidate take all new calls.
    Switch(Ticket),
    /// Let nothing take new calls.
    Withdraw,
    /// Forget an attempt that has started no code.
    Forget(Ticket),
    /// Report the outcome of an attempt (for a removal: of the attempt that brought it up).
    Report(Ticket, Outcome),
    /// Record a transition.
    Note(Note),
}

/// An action that may fail or block: it runs on a thread.
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
    /// Break off the start of a version that nobody wants any more, or its hand-over, as far as that is
    /// possible and not over. Whatever is broken off still answers.
    BreakOff(Ticket),
    /// Persist the running version and the operator's choice, if any. No answer is expected.
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
        from: (PluginState, Option<Stage>),
        /// Where it is.
        to: (PluginState, Option<Stage>),
        /// Why.
        reason: Cow<'static, str>,
    },
    /// The running version crashed.
    Crash {
        /// Where the plugin was, and still is.
        at: (PluginState, Option<Stage>),
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

/// The outcome of a change, for clients and for the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A first version went live.
    Loaded,
    /// A new version replaced this one.
    Reloaded(Digest),
    /// The file changed, but the running code did not.
    Unchanged,
    /// A new version takes a share of the calls.
    Trying,
    /// The change was refused; the previous version still runs.
    Refused(Refused),
    /// The directory decides again, but its version still stays out; the previous version still
    /// runs.
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
    /// Its requirements are active.
    Go,
    /// A plugin that it requires, or that requires it, is still in transition.
    Wait,
    /// It cannot run with the current plugins, and why.
    No(String),
}

#[cfg(test)]
mod tests;
