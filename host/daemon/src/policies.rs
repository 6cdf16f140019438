//! The policies in force: those that come with the host, or the operator's files.
//!
//! Invariant: a file replaces the built-in policy as a whole, so that reading it tells
//! everything that holds.

use std::{borrow::Cow, fs, path::PathBuf};

use hotmerge_policy::{Groups, Rules};
use hotmerge_sandbox::{Grant, Policy};

use crate::Config;

/// Largest policy file, in bytes.
const LIMIT_BYTES: u64 = 1 << 20;

/// Which policy is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What plugins in workers may ask of the kernel.
    Syscalls,
    /// What plugins may import.
    Symbols,
}

/// Why an operator's policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// The file cannot be read.
    #[error("policy `{path}` cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is far too large to be one.
    #[error("policy `{0}` is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// The file is no such policy.
    #[error("policy `{path}` is not valid: {reason}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
}

fn file(config: &Config, kind: Kind) -> Option<&PathBuf> {
    match kind {
        Kind::Syscalls => config.syscall_policy.as_ref(),
        Kind::Symbols => config.symbol_policy.as_ref(),
    }
}

/// A policy as it is written.
///
/// # Errors
/// If the operator's file cannot be read.
pub fn text(config: &Config, kind: Kind) -> Result<Cow<'static, str>, PolicyFileError> {
    let Some(path) = file(config, kind) else {
        return Ok(Cow::Borrowed(match kind {
            Kind::Syscalls => Policy::BUILTIN,
            Kind::Symbols => Groups::BUILTIN,
        }));
    };
    let read = |source| PolicyFileError::Read {
        path: path.clone(),
        source,
    };
    if fs::metadata(path).map_err(read)?.len() > LIMIT_BYTES {
        return Err(PolicyFileError::TooLarge(path.clone()));
    }
    Ok(Cow::Owned(fs::read_to_string(path).map_err(read)?))
}

/// What plugins in workers may ask of the kernel.
///
/// # Errors
/// If the operator's file cannot be used.
pub fn syscalls(config: &Config) -> Result<Policy, PolicyFileError> {
    let policy = Policy::parse(&text(config, Kind::Syscalls)?);
    policy.map_err(|error| wrong(config, Kind::Syscalls, &error))
}

/// What plugins may import.
///
/// # Errors
/// If the operator's file cannot be used.
pub fn symbols(config: &Config) -> Result<Groups, PolicyFileError> {
    let groups = Groups::parse(&text(config, Kind::Symbols)?);
    groups.map_err(|error| wrong(config, Kind::Symbols, &error))
}

/// By which rules the symbols of a plugin are judged. In the host's own process (`is_host`) it
/// has what the host has, and must not bring anything unknown.
pub fn rules(is_host: bool, grants: &[Grant]) -> Rules {
    let is_files = |grant: &Grant| matches!(grant, Grant::Files { .. });
    Rules {
        fs: is_host || grants.iter().any(is_files),
        net: is_host || grants.contains(&Grant::Network),
        strict: is_host,
    }
}

fn wrong(config: &Config, kind: Kind, error: &dyn std::error::Error) -> PolicyFileError {
    PolicyFileError::Wrong {
        path: file(config, kind)
            .cloned()
            .unwrap_or_else(|| "builtin".into()),
        reason: error.to_string().trim_end().to_owned(),
    }
}
