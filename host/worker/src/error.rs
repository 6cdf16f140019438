//! Why a worker cannot serve: one variant for each step that can fail.

use std::io;

use hotmerge_loader::{CallError, LoadError};
use hotmerge_sandbox::FilterError;
use hotmerge_wire::GeometryError;

/// Why the program could not begin to answer its host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("failed to read the host's plan: {0}")]
    Plan(#[source] io::Error),
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    #[error("failed to map the memory shared with the host: {0}")]
    Memory(#[source] io::Error),
    #[error("failed to enter the sandbox: {0}")]
    Enter(#[source] io::Error),
    #[error("the second system call filter was refused: {0}")]
    Lock(#[source] FilterError),
}

/// Why the plugin was not loaded or started; the host shows it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the host sent a request other than to load and start the plugin")]
    Order,
    #[error(transparent)]
    Enter(#[from] io::Error),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the second system call filter was refused: {0}")]
    Lock(#[source] FilterError),
    #[error("its configuration is not UTF-8")]
    Configuration,
    #[error("self-check failed: {0}")]
    SelfCheck(#[source] Box<CallError>),
    #[error("its worker closed its descriptors while it started")]
    Descriptors,
}
