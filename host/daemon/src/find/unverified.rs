//! Why there are no verified bytes, and what that means for an attempt.
//!
//! Absent on purpose: reading and verifying.

use hotmerge_meta::ReadError;

use crate::find::errors::{DirError, Unopened};

/// Why there are no verified bytes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unverified {
    /// The file does not exist.
    #[error("{0}")]
    Missing(String),
    /// File and meta do not match, which may be temporary.
    #[error("{0}")]
    Differs(String),
    /// These bytes with this meta are refused for good.
    #[error("{0}")]
    Refused(String),
    /// The system has no memory or descriptor for them at the moment.
    #[error("{0}")]
    NoRoom(String),
}

impl From<ReadError> for Unverified {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Missing(_) => Self::Missing(error.to_string()),
            _ => Self::Differs(error.to_string()),
        }
    }
}

impl From<DirError> for Unverified {
    fn from(error: DirError) -> Self {
        Self::Differs(error.to_string())
    }
}

impl From<Unopened> for Unverified {
    fn from(error: Unopened) -> Self {
        match error.is_missing() {
            true => Self::Missing(error.to_string()),
            false => Self::Differs(error.to_string()),
        }
    }
}
