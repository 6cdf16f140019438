//! Why a call failed, and the contract's statuses for it.

use hotmerge_abi::{self as abi, Status};

/// How much of a reason is taken, in bytes: of its begin, where it says what happened …
const HEAD: usize = 4 << 10;
/// … and of its end, where a panic says from where it comes.
const TAIL: usize = 1 << 10;

/// What a plugin says instead of a reply, as text, and no more of it than anybody reads.
pub fn reason_text(bytes: &[u8]) -> String {
    if bytes.len() <= HEAD + TAIL {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let (head, tail) = (&bytes[..HEAD], &bytes[bytes.len() - TAIL..]);
    let lost = bytes.len() - HEAD - TAIL;
    let (head, tail) = (String::from_utf8_lossy(head), String::from_utf8_lossy(tail));
    format!("{head} … ({lost} bytes left out) … {tail}")
}

/// What stands for a reason that a plugin owes.
const NO_REASON: &str = "it gave no reason";

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
    /// The plugin can reply in none of the media types that the caller accepts; with those it can.
    #[error("not acceptable: {0}")]
    NotAcceptable(String),
    /// The plugin does not understand the request's media type; with those that it does.
    #[error("unsupported media type: {0}")]
    UnsupportedMedia(String),
    /// The plugin returned a status that the contract does not define.
    #[error("the plugin answered with the unknown status {0}")]
    UnknownStatus(i32),
}

impl CallError {
    /// Converts a status of the contract other than "ok". A long reason is cut, and a missing one is
    /// said to be missing.
    pub fn of(status: Status, reason: &[u8], method: &str) -> Self {
        let reason = match reason_text(reason) {
            none if none.trim().is_empty() && status == abi::STATUS_PANIC => "panicked".to_owned(),
            none if none.trim().is_empty() => NO_REASON.to_owned(),
            reason => reason,
        };
        match status {
            abi::STATUS_FAILED => Self::Failed(reason),
            abi::STATUS_NO_METHOD => Self::NoMethod(method.to_owned()),
            abi::STATUS_BAD_REQUEST => Self::BadRequest(reason),
            abi::STATUS_DEADLINE => Self::Deadline,
            abi::STATUS_PANIC => Self::Panicked(reason),
            abi::STATUS_UNSUPPORTED => Self::Unsupported,
            abi::STATUS_REPLY_TOO_LARGE => Self::ReplyTooLarge,
            abi::STATUS_NO_PLUGIN => Self::NoPlugin(reason),
            abi::STATUS_NOT_ACCEPTABLE => Self::NotAcceptable(reason),
            abi::STATUS_UNSUPPORTED_MEDIA => Self::UnsupportedMedia(reason),
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
            Self::NotAcceptable(reason) => (abi::STATUS_NOT_ACCEPTABLE, reason),
            Self::UnsupportedMedia(reason) => (abi::STATUS_UNSUPPORTED_MEDIA, reason),
            // To the caller, another plugin's panic is an ordinary failure.
            other => (abi::STATUS_FAILED, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_in_its_middle() {
        let mut reason = vec![b'a'; 1 << 20];
        reason.extend(b"\nstack: 1a 2b");
        let error = CallError::of(abi::STATUS_FAILED, &reason, "go").to_string();
        assert!(error.len() < 6 << 10, "{}", error.len());
        assert!(error.starts_with("aaa") && error.ends_with("\nstack: 1a 2b"));
        assert!(error.contains("(1043469 bytes left out)"), "{error}");
    }

    #[test]
    fn a_missing_reason_is_said_to_be_missing() {
        for (status, said) in [
            (abi::STATUS_FAILED, "it gave no reason"),
            (abi::STATUS_BAD_REQUEST, "bad request: it gave no reason"),
            (abi::STATUS_NO_PLUGIN, "it gave no reason"),
            (
                abi::STATUS_NOT_ACCEPTABLE,
                "not acceptable: it gave no reason",
            ),
            (
                abi::STATUS_UNSUPPORTED_MEDIA,
                "unsupported media type: it gave no reason",
            ),
            (abi::STATUS_PANIC, "the plugin panicked"),
        ] {
            for reason in [&b""[..], b" \n\t"] {
                assert_eq!(CallError::of(status, reason, "go").to_string(), said);
            }
        }
    }

    #[test]
    fn a_reason_that_is_not_text_is_shown() {
        let error = CallError::of(abi::STATUS_FAILED, b"a\xff", "go");
        assert_eq!(error.to_string(), "a\u{fffd}");
    }
}
