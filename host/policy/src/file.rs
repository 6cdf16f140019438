//! What a plugin file requests from the dynamic loader.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::Objection;

/// Why a file cannot be read as the loader would.
#[derive(Debug, thiserror::Error)]
#[error("what the dynamic loader would read is invalid: {0}")]
pub struct FileError(pub(crate) &'static str);

/// A loadable segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// Its address in memory.
    pub address: u64,
    /// Its size in memory, in bytes.
    pub bytes: u64,
    /// `r`, `w` and `x`, or `-`.
    pub access: String,
}

/// What a file requests from the dynamic loader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct File {
    /// Its loadable segments.
    pub segments: Vec<Segment>,
    /// Libraries that it needs.
    pub needed: Vec<String>,
    /// Symbols that it imports.
    pub imports: BTreeSet<String>,
    /// Whether the loader would keep it until the process ends, which only a worker may do.
    pub stays_loaded: bool,
    /// Properties that no plugin may have, regardless of its imports.
    pub oddities: Vec<Objection>,
}
