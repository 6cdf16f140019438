//! The symbol policy, before anything of a plugin is loaded.

use std::{fs::File as Bytes, io, os::unix::fs::FileExt as _};

use hotmerge_loader::Verified;
pub use hotmerge_policy::Groups;
use hotmerge_policy::{File, FileError, Objection, judge};
use hotmerge_sandbox::Grant;

use crate::{rules::policies, settings::Isolation};

/// Most objections that are listed in one sentence.
const MOST_LISTED: usize = 5;

/// The symbol policy's objections to a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolsError {
    /// The image cannot be read.
    #[error("failed to read its image: {0}")]
    Image(io::Error),
    /// The dynamic loader could not parse it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The dynamic loader would run something of it.
    #[error("{0}")]
    Runs(Objection),
    /// It imports forbidden symbols.
    #[error("the symbol policy refuses it: {}; see `hotmerge inspect`", list(.0))]
    Refused(Vec<Objection>),
}

fn list(objections: &[Objection]) -> String {
    let listed = objections.iter().take(MOST_LISTED);
    let mut listed: Vec<_> = listed.map(ToString::to_string).collect();
    if objections.len() > listed.len() {
        listed.push(format!("and {} more", objections.len() - listed.len()));
    }
    listed.join("; ")
}

/// Reads a verified image as the dynamic loader does.
///
/// # Errors
/// Where it cannot be read so.
pub(crate) fn read(verified: &Verified) -> Result<File, SymbolsError> {
    let mut image = vec![0; verified.bytes()];
    verified
        .memory()
        .try_clone_to_owned()
        .map(Bytes::from)
        .and_then(|file| file.read_exact_at(&mut image, 0))
        .map_err(SymbolsError::Image)?;
    Ok(File::read(&image)?)
}

/// Checks that the dynamic loader runs nothing of it that no worker can keep it from before it has
/// shut itself in. No setting permits that.
///
/// # Errors
/// What that is.
pub(crate) fn runs_nothing(file: &File) -> Result<(), SymbolsError> {
    let mut oddities = file.oddities.iter();
    match oddities.find(|oddity| oddity.subject == "IFUNC") {
        Some(oddity) => Err(SymbolsError::Runs(oddity.clone())),
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
) -> Result<(), SymbolsError> {
    let rules = policies::rules(isolation == Isolation::Host, grants);
    let objections = judge(file, groups, rules);
    if objections.is_empty() {
        return Ok(());
    }
    Err(SymbolsError::Refused(objections))
}
