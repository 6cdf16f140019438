//! Why verified bytes could not be had, and so what becomes of an attempt.
//!
//! Absent on purpose: looking for them.

use hotmerge_meta::ReadError;

use crate::find::scan::Unopened;

/// Why verified bytes could not be had.
#[derive(Debug)]
pub(crate) enum Unverified {
    /// The file is not there, as if it had never been.
    Missing(String),
    /// File and meta do not belong together, which may pass.
    Differs(String),
    /// These bytes, with this meta, will never do.
    Refused(String),
    /// The system has no memory or no descriptor for them now.
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

impl From<Unopened> for Unverified {
    fn from(error: Unopened) -> Self {
        match error.is_missing() {
            true => Self::Missing(error.to_string()),
            false => Self::Differs(error.to_string()),
        }
    }
}
