//! Whether a granted path leads where the operator meant it to.
//!
//! Invariant: any user who could redirect a granted path, or write to its target, is root, the
//! host's user, or the user that the plugin's worker runs as, who gains no access by it.
//!
//! Absent on purpose: opening the path for the worker, which does that itself and takes only what was judged
//! here.

use hotmerge_meta::{Trust, Untrusted};
use hotmerge_sandbox::{Grant, Judged};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// Another user could redirect a granted path.
#[derive(Debug, thiserror::Error)]
#[error("`{grant}` is granted to it, but {source}")]
pub struct UntrustedGrant {
    /// What is granted.
    grant: Grant,
    /// Who could, and what to do.
    source: Untrusted,
}

/// Checks every granted path of a plugin whose worker runs as this user. Returns what the paths lead to.
///
/// # Errors
/// The first path that another user could redirect.
pub fn check(
    grants: &[Grant],
    user: Option<u32>,
    trust: &Trust,
) -> Result<Vec<Judged>, UntrustedGrant> {
    let trust = match user {
        Some(user) => &trust.and(user),
        None => trust,
    };
    let mut judged = Vec::new();
    if trust.is_anybody() {
        return Ok(judged);
    }
    for grant in grants {
        let Grant::Files { path, .. } = grant else {
            continue;
        };
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        // What cannot be opened so is refused by the worker.
        let Ok(found) = openat2(CWD, path, flags, Mode::empty(), resolve) else {
            continue;
        };
        let refused = |source| UntrustedGrant {
            grant: grant.clone(),
            source,
        };
        trust.check_way(&found, path).map_err(refused)?;
        let found = Judged::of(path, &found).map_err(|source| Untrusted::Io {
            path: path.clone(),
            source,
        });
        judged.push(found.map_err(refused)?);
    }
    Ok(judged)
}
