//! The policies in force: those that come with the host, or the operator's files.
//!
//! Invariant: a file replaces the built-in policy as a whole, so that reading it tells
//! everything that holds.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use hotmerge_policy::{Groups, Rules};
use hotmerge_sandbox::{Grant, Policy};

use crate::{
    rules::text_file::{self, TextFileError},
    settings::PolicyFiles,
};

/// Its name in messages.
const WHAT: &str = "policy";

/// Which policy is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The system calls that plugins in workers may make.
    Syscalls,
    /// The symbols that plugins may import.
    Symbols,
}

fn file(files: &PolicyFiles, kind: Kind) -> Option<&PathBuf> {
    match kind {
        Kind::Syscalls => files.syscalls.as_ref(),
        Kind::Symbols => files.symbols.as_ref(),
    }
}

/// A policy as it is written.
///
/// # Errors
/// If the operator's file cannot be read.
pub fn text(files: &PolicyFiles, kind: Kind) -> Result<Cow<'static, str>, TextFileError> {
    let Some(path) = file(files, kind) else {
        return Ok(Cow::Borrowed(match kind {
            Kind::Syscalls => Policy::BUILTIN,
            Kind::Symbols => Groups::BUILTIN,
        }));
    };
    text_file::read(WHAT, path, &files.trust).map(Cow::Owned)
}

/// The system calls that plugins in workers may make.
///
/// # Errors
/// If the operator's file cannot be used.
pub fn syscalls(files: &PolicyFiles) -> Result<Policy, TextFileError> {
    let policy = Policy::parse(&text(files, Kind::Syscalls)?);
    policy.map_err(|error| wrong(files, Kind::Syscalls, &error))
}

/// The symbols that plugins may import.
///
/// # Errors
/// If the operator's file cannot be used.
pub fn symbols(files: &PolicyFiles) -> Result<Groups, TextFileError> {
    let groups = Groups::parse(&text(files, Kind::Symbols)?);
    groups.map_err(|error| wrong(files, Kind::Symbols, &error))
}

/// By which rules the symbols of a plugin are judged. In the host's own process (`is_host`) it
/// has all rights of the host, and must not import anything unknown.
pub fn rules(is_host: bool, grants: &[Grant]) -> Rules {
    let is_files = |grant: &Grant| matches!(grant, Grant::Files { .. });
    Rules {
        fs: is_host || grants.iter().any(is_files),
        net: is_host || grants.contains(&Grant::Network),
        strict: is_host,
    }
}

fn wrong(files: &PolicyFiles, kind: Kind, error: &dyn std::error::Error) -> TextFileError {
    let path = file(files, kind).map_or(Path::new("builtin"), PathBuf::as_path);
    text_file::wrong(WHAT, path, error)
}
