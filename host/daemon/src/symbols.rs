//! The symbol policy, before anything of a plugin is loaded.

use std::{fs::File as Bytes, os::unix::fs::FileExt as _};

use hotmerge_loader::Verified;
use hotmerge_policy::{File, Groups, judge};
use hotmerge_sandbox::Grant;
use serde::Deserialize;

use crate::{cell::Isolation, policies};

/// Whether the symbol policy counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symbols {
    /// Plugins that break it are refused.
    #[default]
    Enforce,
    /// It is not looked at.
    Off,
}

/// Reads a verified image as the dynamic loader does.
///
/// # Errors
/// Where it cannot be read so.
pub(crate) fn read(verified: &Verified) -> Result<File, String> {
    let mut image = vec![0; verified.bytes()];
    verified
        .memory()
        .try_clone_to_owned()
        .map(Bytes::from)
        .and_then(|file| file.read_exact_at(&mut image, 0))
        .map_err(|error| format!("failed to read its image: {error}"))?;
    File::read(&image).map_err(|error| error.to_string())
}

/// Looks whether the dynamic loader would run something of it that no worker can keep it from before it
/// has shut itself in. No setting permits that.
///
/// # Errors
/// What that is, or that it cannot be read.
pub(crate) fn runs_nothing(file: Result<&File, &String>) -> Result<(), String> {
    let file = file.map_err(String::clone)?;
    let mut oddities = file.oddities.iter();
    match oddities.find(|oddity| oddity.subject == "IFUNC") {
        Some(oddity) => Err(oddity.to_string()),
        None => Ok(()),
    }
}

/// Judges what was read.
///
/// # Errors
/// The first objections, each with its symbol and rule.
pub(crate) fn check(
    file: &File,
    groups: &Groups,
    isolation: Isolation,
    grants: &[Grant],
) -> Result<(), String> {
    let rules = policies::rules(isolation == Isolation::Host, grants);
    let objections = judge(file, groups, rules);
    if objections.is_empty() {
        return Ok(());
    }
    let mut told: Vec<_> = objections.iter().take(5).map(ToString::to_string).collect();
    if objections.len() > told.len() {
        told.push(format!("and {} more", objections.len() - told.len()));
    }
    Err(format!(
        "the symbol policy refuses it: {}; see `hotmerge inspect`",
        told.join("; ")
    ))
}
