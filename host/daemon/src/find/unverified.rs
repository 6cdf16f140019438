//! Why verified bytes could not be had, and so what becomes of an attempt.
//!
//! Absent on purpose: looking for them.

use hotmerge_meta::ReadError;

use crate::find::errors::{DirError, Unopened};

/// Why verified bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unverified {
    /// The file is not there, as if it had never been.
    #[error("{0}")]
    Missing(String),
    /// File and meta do not belong together, which may pass.
    #[error("{0}")]
    Differs(String),
    /// These bytes, with this meta, will never do.
    #[error("{0}")]
    Refused(String),
    /// The system has no memory or no descriptor for them now.
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
