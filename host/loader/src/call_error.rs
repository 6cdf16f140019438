//! Why a call failed, and the contract's statuses for it.

use hotmerge_abi::{self as abi, Status};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The plugin refused, with its reason.
    #[error("{0}")]
    Failed(String),
    /// The plugin has no such method.
    #[error("the plugin has no method `{0}`")]
    NoMethod(String),
    /// The request is invalid for the method.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// The deadline passed.
    #[error("the deadline of the call has passed")]
    Deadline,
    /// The caller cancelled the call.
    #[error("the call was cancelled")]
    Cancelled,
    /// The plugin panicked; the panic was contained.
    #[error("the plugin {0}")]
    Panicked(String),
    /// The plugin does not support this.
    #[error("the plugin does not support this")]
    Unsupported,
    /// The reply is larger than the caller accepts.
    #[error("the reply is larger than the limit")]
    ReplyTooLarge,
    /// The worker of the plugin ended during the call, or has broken off its work.
    #[error("the plugin {0}")]
    Crashed(String),
    /// No instance of the plugin takes calls at the moment.
    #[error("the plugin cannot take calls: {0}")]
    Unavailable(String),
    /// The plugin to call takes no calls, or none from this caller.
    #[error("{0}")]
    NoPlugin(String),
    /// The plugin returned a status that the contract does not define.
    #[error("the plugin answered with the unknown status {0}")]
    UnknownStatus(i32),
}

impl CallError {
    /// Converts a status of the contract other than "ok".
    pub fn of(status: Status, reason: String, method: &str) -> Self {
        match status {
            abi::STATUS_FAILED => Self::Failed(reason),
            abi::STATUS_NO_METHOD => Self::NoMethod(method.to_owned()),
            abi::STATUS_BAD_REQUEST => Self::BadRequest(reason),
            abi::STATUS_DEADLINE => Self::Deadline,
            abi::STATUS_PANIC => Self::Panicked(reason),
            abi::STATUS_UNSUPPORTED => Self::Unsupported,
            abi::STATUS_REPLY_TOO_LARGE => Self::ReplyTooLarge,
            abi::STATUS_NO_PLUGIN => Self::NoPlugin(reason),
            other => Self::UnknownStatus(other),
        }
    }

    /// The status and the reason behind this error, for forwarding.
    pub fn status(&self) -> (Status, String) {
        match self {
            Self::Panicked(reason) => (abi::STATUS_PANIC, reason.clone()),
            other => other.clone().into_status(),
        }
    }

    /// The status, and the reason if the status does not already express it.
    pub(crate) fn into_status(self) -> (Status, String) {
        match self {
            Self::Failed(reason) => (abi::STATUS_FAILED, reason),
            Self::NoMethod(_) => (abi::STATUS_NO_METHOD, String::new()),
            Self::BadRequest(reason) => (abi::STATUS_BAD_REQUEST, reason),
            Self::Deadline => (abi::STATUS_DEADLINE, String::new()),
            Self::Unsupported => (abi::STATUS_UNSUPPORTED, String::new()),
            Self::ReplyTooLarge => (abi::STATUS_REPLY_TOO_LARGE, String::new()),
            Self::NoPlugin(reason) => (abi::STATUS_NO_PLUGIN, reason),
            // To the caller, another plugin's panic is an ordinary failure.
            other => (abi::STATUS_FAILED, other.to_string()),
        }
    }
}
