//! The errors of a plugin's functions.

use hotmerge_abi as abi;

/// Why a plugin function failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// It failed, with a reason for people.
    Failed(String),
    /// There is no method with that name.
    NoMethod,
    /// The request is invalid for the method, with a reason for people.
    BadRequest(String),
    /// The deadline of the call has passed.
    Deadline,
    /// The plugin does not support this.
    Unsupported,
    /// The reply exceeds the host's size limit.
    ReplyTooLarge,
    /// Another plugin takes no calls, or may not be called from this one; with the reason.
    NotLoaded(String),
    /// The reply is available in none of the media types that the caller accepts; with those that
    /// it is available in.
    NotAcceptable(String),
    /// The method does not understand the request's media type; with those that it does.
    UnsupportedMedia(String),
}

impl Error {
    /// An invalid request, with the reason.
    pub fn bad_request(reason: impl std::fmt::Display) -> Self {
        Self::BadRequest(reason.to_string())
    }

    pub(crate) fn status(&self) -> abi::Status {
        match self {
            Self::Failed(_) => abi::STATUS_FAILED,
            Self::NoMethod => abi::STATUS_NO_METHOD,
            Self::BadRequest(_) => abi::STATUS_BAD_REQUEST,
            Self::Deadline => abi::STATUS_DEADLINE,
            Self::Unsupported => abi::STATUS_UNSUPPORTED,
            Self::ReplyTooLarge => abi::STATUS_REPLY_TOO_LARGE,
            Self::NotLoaded(_) => abi::STATUS_NO_PLUGIN,
            Self::NotAcceptable(_) => abi::STATUS_NOT_ACCEPTABLE,
            Self::UnsupportedMedia(_) => abi::STATUS_UNSUPPORTED_MEDIA,
        }
    }

    /// Converts another plugin's status and the text it wrote.
    pub(crate) fn from_status(status: abi::Status, reason: Vec<u8>) -> Self {
        let reason = String::from_utf8_lossy(&reason).into_owned();
        match status {
            abi::STATUS_NO_METHOD => Self::NoMethod,
            abi::STATUS_BAD_REQUEST => Self::BadRequest(reason),
            abi::STATUS_DEADLINE => Self::Deadline,
            abi::STATUS_UNSUPPORTED => Self::Unsupported,
            abi::STATUS_REPLY_TOO_LARGE => Self::ReplyTooLarge,
            abi::STATUS_NO_PLUGIN => Self::NotLoaded(reason),
            abi::STATUS_NOT_ACCEPTABLE => Self::NotAcceptable(reason),
            abi::STATUS_UNSUPPORTED_MEDIA => Self::UnsupportedMedia(reason),
            _ => Self::Failed(reason),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(reason)
            | Self::BadRequest(reason)
            | Self::NotLoaded(reason)
            | Self::NotAcceptable(reason)
            | Self::UnsupportedMedia(reason) => f.write_str(reason),
            Self::NoMethod => f.write_str("no such method"),
            Self::Deadline => f.write_str("the deadline has passed"),
            Self::Unsupported => f.write_str("not supported"),
            Self::ReplyTooLarge => f.write_str("the reply is larger than the host accepts"),
        }
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

impl From<&str> for Error {
    fn from(reason: &str) -> Self {
        Self::Failed(reason.to_owned())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<std::fmt::Error> for Error {
    fn from(_: std::fmt::Error) -> Self {
        Self::ReplyTooLarge
    }
}
