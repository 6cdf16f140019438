//! The codes that functions return, and the failures that they stand for.
//!
//! Invariant: a code never changes its number or its meaning.

use std::ffi::c_int;

use hotmerge_daemon::{CallError, PluginError};

/// Done.
pub const HM_OK: c_int = 0;
/// This callback is registered already, with the same user pointer.
pub const HM_DUPLICATE: c_int = -1;
/// An argument is invalid: a null pointer, text that is not UTF-8, a wrong size.
pub const HM_INVALID: c_int = -2;
/// The host has been stopped.
pub const HM_STOPPED: c_int = -3;
/// This process is a child that was forked from the one that started the host.
pub const HM_FORKED: c_int = -4;
/// The buffer is too small and untouched; the needed length is where the length was asked for.
pub const HM_TOO_SMALL: c_int = -5;
/// There is no such plugin, callback or kept reply.
pub const HM_NOT_FOUND: c_int = -6;
/// No version of the plugin takes calls.
pub const HM_NOT_LOADED: c_int = -7;
/// The plugin has no such method.
pub const HM_NO_METHOD: c_int = -8;
/// The plugin answered with an error of its own.
pub const HM_REFUSED: c_int = -9;
/// The request or its media type is invalid for the method.
pub const HM_BAD_REQUEST: c_int = -10;
/// The deadline passed.
pub const HM_DEADLINE: c_int = -11;
/// The call was cancelled.
pub const HM_CANCELLED: c_int = -12;
/// The plugin panicked or crashed during the call. Other calls are not affected.
pub const HM_CRASHED: c_int = -13;
/// The reply is larger than the caller permits.
pub const HM_TOO_LARGE: c_int = -14;
/// The host cannot start, or the system lacks what is needed.
pub const HM_FAILED: c_int = -15;
/// A fault of this library.
pub const HM_BUG: c_int = -16;

/// Why a function failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: c_int,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: c_int, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(HM_INVALID, text)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let code = match &error {
            CallError::NotLoaded(_) => HM_NOT_LOADED,
            CallError::TooDeep => HM_REFUSED,
            CallError::Plugin(error) => of_plugin(error),
        };
        Self::new(code, error.to_string())
    }
}

fn of_plugin(error: &PluginError) -> c_int {
    match error {
        PluginError::NoMethod(_) => HM_NO_METHOD,
        PluginError::BadRequest(_)
        | PluginError::NotAcceptable(_)
        | PluginError::UnsupportedMedia(_) => HM_BAD_REQUEST,
        PluginError::Deadline => HM_DEADLINE,
        PluginError::Cancelled => HM_CANCELLED,
        PluginError::Panicked(_) | PluginError::Crashed(_) => HM_CRASHED,
        PluginError::ReplyTooLarge => HM_TOO_LARGE,
        PluginError::Unavailable(_) | PluginError::NoPlugin(_) => HM_NOT_LOADED,
        // The plugin's own errors.
        _ => HM_REFUSED,
    }
}
