//! What is asked of a worker, and what comes of it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use hotmerge_abi::{CallContext, Status};

use crate::METHOD_LIMIT;

/// What is asked of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Which operation; worker and host agree on the numbers.
    pub op: u32,
    /// Handed to the plugin. Its deadline ends the call.
    pub context: &'a CallContext,
    /// Name of a method, at most [`METHOD_LIMIT`] bytes, with what [`op`](crate::op) says of other
    /// operations.
    pub method: &'a str,
    /// The request's bytes.
    pub bytes: &'a [u8],
    /// How large a reply may be, in bytes.
    pub reply_limit: usize,
    /// Point on the monotonic clock in nanoseconds at which the caller gives up, whatever the
    /// context says; 0 for none.
    pub give_up_ns: u64,
    /// Ends the call from elsewhere.
    pub cancel: Option<&'a Cancel>,
    /// For whom it is, if not for the host itself: nobody gets more than a share of the slots.
    pub on_behalf_of: Option<&'a Arc<str>>,
}

/// What came back, copied into memory of the caller's.
#[derive(Debug, Default)]
pub struct Reply {
    /// The reply's bytes, or the reason of a refusal. Appended to what is there.
    pub bytes: Vec<u8>,
    /// The media type, not yet judged; empty if none was set.
    pub media_type: Vec<u8>,
}

/// What the other side answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It did what was asked.
    Reply {
        /// The reply's bytes.
        bytes: Vec<u8>,
        /// The media type, not yet judged; empty if none was set.
        media_type: Vec<u8>,
    },
    /// It did not.
    Refusal {
        /// One of the contract's, other than "ok".
        status: Status,
        /// Why, as the other side says it: text, but nobody has looked at it yet.
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
    /// The worker is gone. `begun` says whether it had taken the call.
    #[error("the worker has ended")]
    Gone {
        /// Whether the worker had taken the call, as far as can be known.
        begun: bool,
    },
    /// What the worker wrote makes no sense: it must be ended.
    #[error("the worker broke the protocol: {0}")]
    Broken(&'static str),
    /// The request has no room.
    #[error("the request has {bytes} bytes; a worker accepts at most {room}")]
    TooLarge {
        /// Of method and request together.
        bytes: usize,
        /// Of an area.
        room: usize,
    },
    /// The name of the method is too long.
    #[error("the method name has {0} bytes; at most {METHOD_LIMIT} are accepted")]
    LongMethod(usize),
}

/// Ends a call from another thread.
#[derive(Debug, Default)]
pub struct Cancel(AtomicBool);

impl Cancel {
    /// Ends the calls that carry this mark. A caller that waits already notices only when it
    /// looks up; [`Caller::cancel`](crate::Caller::cancel) wakes it.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was cancelled.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
