//! The record of administrative requests: who asked for what, and what came of it.
//!
//! Invariant: one record per request that needs the role `admin`, and one per refusal for want of
//! a role, whatever the outcome; they have a target of their own, so that they can be kept apart
//! from the rest of the log.
//!
//! Absent on purpose: requests that change nothing.

use hotmerge_meta::control::ErrorObjectOwned;
use serde_json::value::RawValue;

use crate::roles::{Denied, Identity};

/// The most of the parameters that is recorded, in bytes.
const PARAMS_LIMIT: usize = 512;

/// Records what came of an administrative request.
pub(crate) fn done(
    who: &Identity,
    method: &str,
    params: Option<&RawValue>,
    answer: &Result<Box<RawValue>, ErrorObjectOwned>,
) {
    let mut params = params.map_or_else(String::new, |params| params.get().to_owned());
    crate::bounded::cut(&mut params, PARAMS_LIMIT);
    match answer {
        Ok(_) => {
            tracing::info!(target: "hotmerge::audit", %who, method, params, outcome = "done", "administrative request");
        }
        Err(error) => {
            let reason = error.message();
            tracing::warn!(target: "hotmerge::audit", %who, method, params, outcome = "failed", reason, "administrative request");
        }
    }
}

/// Records that somebody asked for what they may not.
pub(crate) fn denied(who: &Identity, method: &str, why: &Denied) {
    tracing::warn!(target: "hotmerge::audit", %who, method, outcome = "denied", "{why}");
}
