//! Whether a plugin may be loaded at all, judging by its file and the configuration.
//!
//! Invariant: a host asks here before it starts anything, and code that judges files without a host asks
//! here too, so that both give the same answer in the same words.
//!
//! Absent on purpose: what only the running system shows, such as whether it provides a sandbox.

use hotmerge_loader::{Constructors, Verified};
use hotmerge_meta::PluginMeta;

use crate::{
    rules::{
        symbols::{self, Groups, SymbolsError},
        wants::not_granted,
    },
    settings::{Isolation, LimitsConfig, PluginSettings},
    worker::LaunchError,
};

/// Why a plugin is not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Inadmissible {
    /// Its file breaks the rules, perhaps because its requests are not granted.
    #[error("{error}{}", in_vain.as_ref().map(|what| format!("; {what}")).unwrap_or_default())]
    Symbols {
        /// The rules that it breaks.
        error: SymbolsError,
        /// What it requests but is not granted.
        in_vain: Option<String>,
    },
    /// No worker could load it.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

impl From<SymbolsError> for Inadmissible {
    fn from(error: SymbolsError) -> Self {
        Self::Symbols {
            error,
            in_vain: None,
        }
    }
}

/// A plugin's requests that are not granted, in a sentence.
pub fn ungranted(meta: &PluginMeta, own: &PluginSettings, isolation: Isolation) -> Option<String> {
    let asked = not_granted(&meta.wants, &own.allow, isolation);
    let asked = (!asked.is_empty()).then(|| asked.join("`, `"))?;
    Some(format!(
        "it requests `{asked}`, which the configuration does not grant"
    ))
}

/// Judges a verified file by the symbol policy, if there is one, and by what a worker can load. Returns the
/// libraries of the C runtime that it needs.
///
/// # Errors
/// Why it is not loaded.
pub fn admit(
    meta: &PluginMeta,
    verified: &Verified,
    own: &PluginSettings,
    isolation: Isolation,
    policy: Option<&Groups>,
) -> Result<Vec<String>, Inadmissible> {
    let is_apart = isolation == Isolation::Process;
    if policy.is_none() && !is_apart {
        return Ok(Vec::new());
    }
    let file = symbols::read(verified)?;
    if let Some(groups) = policy {
        let judged = symbols::check(&file, groups, isolation, &own.allow);
        tracing::trace!(
            target: "hotmerge::plugin", plugin = %meta.name, is_good = judged.is_ok(),
            "its symbols are judged"
        );
        judged.map_err(|error| Inadmissible::Symbols {
            error,
            in_vain: ungranted(meta, own, isolation),
        })?;
    }
    if is_apart {
        symbols::runs_nothing(&file)?;
        loadable(verified, &own.limits)?;
    }
    Ok(file.runtime_libraries().map(str::to_owned).collect())
}

/// Checks that a worker with these limits can load it. Returns what of it the dynamic loader would run.
///
/// # Errors
/// Why none can, on any system.
pub(crate) fn loadable<'a>(
    image: &'a Verified,
    limits: &LimitsConfig,
) -> Result<&'a Constructors, LaunchError> {
    let needs_mib = image.writable_bytes() >> 20;
    let limit_mib = limits.memory_mib;
    if needs_mib > limit_mib {
        return Err(LaunchError::TooLarge {
            needs_mib,
            limit_mib,
        });
    }
    Ok(image.constructors()?)
}
