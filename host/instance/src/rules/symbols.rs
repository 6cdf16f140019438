//! The symbol policy, before anything of a plugin is loaded.

use std::{fs::File as Bytes, os::unix::fs::FileExt as _};

use hotmerge_loader::Verified;
pub use hotmerge_policy::Groups;
use hotmerge_policy::{File, judge};
use hotmerge_sandbox::Grant;

use crate::{rules::policies, settings::Isolation};

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

/// Judges a verified image.
///
/// # Errors
/// Where it cannot be read, or the first objections.
pub fn admit(
    verified: &Verified,
    groups: &Groups,
    isolation: Isolation,
    grants: &[Grant],
) -> Result<(), String> {
    check(&read(verified)?, groups, isolation, grants)
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
