//! Why an attempt to bring a version up ends: one variant for each step that can fail.

use std::io;

use hotmerge_loader::{CallError, LoadError};
use hotmerge_swap::TooDeep;

use crate::record::store::StoreError;

/// Why a stored version cannot be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoredError {
    #[error("the stored version cannot be used: {0}")]
    Unreadable(#[from] StoreError),
    #[error("the stored version is damaged: {0}")]
    Damaged(#[source] LoadError),
    #[error("{0}")]
    NoRoom(#[source] LoadError),
    /// It is intact, but built for another host.
    #[error("the stored version: {0}")]
    Unfit(#[source] LoadError),
}

impl From<LoadError> for StoredError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Promise(_) | LoadError::Image(_) => Self::Damaged(error),
            LoadError::Seal { .. } => Self::NoRoom(error),
            _ => Self::Unfit(error),
        }
    }
}

/// Why the running image cannot be started again.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunningError {
    #[error("the running image cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error(transparent)]
    Unverified(#[from] LoadError),
}

/// Why a candidate did not get the state of the running version.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
    #[error("the running version did not save its state: {0}")]
    NotSaved(#[source] Box<CallError>),
    #[error(
        "it has state, which two versions at a time cannot share; take `canary` out of its \
         configuration"
    )]
    Shared,
    #[error("it did not take over the state of the running version: {0}")]
    NotRestored(#[source] Box<CallError>),
}
