//! What an instance reports to its host, and requests from it: the only arrow upwards.

use std::{fmt, time::Duration};

use hotmerge_loader::{CallError, HostServices, OutgoingCall, Reply};

use crate::{cancel::Cancel, failure::Failure};

/// What happened to an instance.
#[derive(Clone, Debug)]
pub enum Report {
    /// Its worker crashed, or was killed for its behaviour; the instance replaces it itself.
    Crashed {
        /// What happened.
        failure: Failure,
        /// How old the state is that the next worker continues from; `None` without any.
        state_age: Option<Duration>,
    },
    /// A panic was caught in the host's own process; the host replaces the instance.
    Panicked {
        /// What happened.
        failure: Failure,
        /// As in [`Report::Crashed`].
        state_age: Option<Duration>,
    },
    /// A panic was caught in an instance that is being replaced already.
    PanickedAgain {
        /// What happened.
        failure: Failure,
    },
    /// Another worker takes the calls from here on.
    Restarted {
        /// How old the state is that it continues from; `None` without any.
        state_age: Option<Duration>,
    },
    /// There is no other worker yet, because the system lacks a resource for it.
    NotRestartedYet {
        /// What happened, and why there is none.
        what: String,
    },
    /// Its worker died while another was being started in its place.
    DiedWhileReplaced {
        /// What happened.
        failure: Failure,
    },
    /// It requests rights that the configuration does not grant.
    NotGranted {
        /// The rights.
        what: String,
    },
    /// Its worker's memory is checked only when the worker writes something.
    MemoryUnwatched {
        /// What the system does not provide.
        reason: String,
    },
    /// It made no room for a reply, which was dropped. Reported for the 1st, 2nd, 4th, 8th, …
    ReplyDropped {
        /// How many replies to all plugins were dropped so far.
        times: u64,
        /// Most memory of waiting replies, in bytes.
        most_bytes: usize,
    },
    /// A worker that was replaced ends before its last call, because the system has no free thread.
    EndedEarly {
        /// What the system says.
        reason: String,
    },
    /// The thread that watches its worker panicked.
    WatcherPanicked,
    /// Crashed too often: no other worker is started.
    GivenUp {
        /// Why, for people.
        reason: String,
    },
    /// An operator asked to try again after it was given up.
    Revived,
    /// The first call since its state was saved.
    FirstCallSinceSave,
}

/// The host, as one of its instances sees it: carries its log records and its calls to other
/// plugins ([`HostServices`]), and takes its reports.
pub trait Upward: HostServices + fmt::Debug {
    /// Something happened to the instance. Must not block for long: calls may be waiting.
    fn report(&self, report: Report);

    /// As [`HostServices::call`], until `cancel` ends the call.
    ///
    /// # Errors
    /// What to answer instead of a reply.
    fn call_until(
        &self,
        cancel: &Cancel,
        call: OutgoingCall<'_>,
        reply: &mut Reply,
    ) -> Result<(), CallError>;
}
