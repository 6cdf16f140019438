//! A request to a worker, and its outcome.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use hotmerge_abi::{CallContext, Status};

use crate::{Breach, METHOD_LIMIT};

/// A request to a worker.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The operation, one of [`op`](crate::op).
    pub op: u32,
    /// The context for the plugin. Its deadline ends the call.
    pub context: &'a CallContext,
    /// Name of a method, at most [`METHOD_LIMIT`] bytes; [`op`](crate::op) says what else it holds
    /// for other operations.
    pub method: &'a str,
    /// The request's bytes.
    pub bytes: &'a [u8],
    /// The largest reply that is accepted, in bytes.
    pub reply_limit: usize,
    /// Point on the monotonic clock in nanoseconds at which the caller gives up, whatever the
    /// context says; 0 for none.
    pub give_up_ns: u64,
    /// Cancels the call from another thread.
    pub cancel: Option<&'a Cancel>,
    /// The plugin that makes the call, if it is not the host's own: no plugin gets more than its share of
    /// the slots.
    pub on_behalf_of: Option<&'a Arc<str>>,
}

/// A request as reports show it.
#[derive(Clone, Debug)]
pub struct Requested {
    /// The operation, as the caller noted it.
    pub op: u32,
    /// What stands in the place of a method's name; the worker may have written there.
    pub method: String,
    /// The context; the worker may have written there.
    pub context: CallContext,
}

/// The reply, copied into the caller's memory.
#[derive(Debug, Default)]
pub struct Reply {
    /// The bytes of the reply or of the reason for a refusal, appended to what it held.
    pub bytes: Vec<u8>,
    /// The media type, unverified; empty if none was set.
    pub media_type: Vec<u8>,
}

/// The other side's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It carried the request out.
    Reply {
        /// The reply's bytes.
        bytes: Vec<u8>,
        /// The media type, unverified; empty if none was set.
        media_type: Vec<u8>,
    },
    /// It refused.
    Refusal {
        /// A status of the contract other than "ok".
        status: Status,
        /// The other side's reason, as unverified text.
        reason: Vec<u8>,
    },
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// The deadline passed.
    #[error("the deadline of the call has passed")]
    Deadline,
    /// The call was cancelled.
    #[error("the call was cancelled")]
    Cancelled,
    /// The worker has ended.
    #[error("the worker has ended")]
    Gone {
        /// Whether the worker had taken the call, as far as is known.
        begun: bool,
    },
    /// The worker broke the protocol and must be killed.
    #[error("the worker broke the protocol: {0}")]
    Broken(#[from] Breach),
    /// The request is too large.
    #[error("the request has {bytes} bytes; a worker accepts at most {room}")]
    TooLarge {
        /// Size of method and request together.
        bytes: usize,
        /// Size of an area.
        room: usize,
    },
    /// The name of the method is too long.
    #[error("the method name has {0} bytes; at most {METHOD_LIMIT} are accepted")]
    LongMethod(usize),
}

/// Cancels calls from another thread.
#[derive(Debug, Default)]
pub struct Cancel(AtomicBool);

impl Cancel {
    /// Cancels the calls that carry this mark. A caller that already waits notices this late, unless
    /// [`Caller::cancel`](crate::Caller::cancel) wakes it.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was cancelled.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
