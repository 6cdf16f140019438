//! What a plugin refuses.

use std::fmt;

use hotmerge_abi::{self as abi, Sink, Status};

use crate::answer::{self, Answer};

/// A refusal: the status and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// One of the contract's `STATUS_…`.
    pub status: Status,
    /// The plugin's reason.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}: {}", self.status, self.reason)
    }
}

impl std::error::Error for Refused {}

/// Runs what writes into a sink, and returns what it wrote.
pub(super) fn gather(body: impl FnOnce(&Sink) -> Status) -> Result<Answer, Refused> {
    match answer::gather(body) {
        (abi::STATUS_OK, answer) => Ok(answer),
        (status, answer) => Err(Refused {
            status,
            reason: String::from_utf8_lossy(&answer.bytes).into_owned(),
        }),
    }
}
