//! The audit log of administrative requests: who requested what, and the outcome.
//!
//! Invariant: one record per request that needs the role `admin`, whatever its outcome, and one per
//! refusal for lack of a role. They have their own target, so that they can be kept apart from the rest
//! of the log.
//!
//! Absent on purpose: requests that change nothing.

use hotmerge_meta::{control::ErrorObjectOwned, cut};
use serde_json::value::RawValue;

use crate::roles::{Denied, Identity};

/// Longest excerpt of the parameters in a record, in bytes.
const PARAMS_LIMIT: usize = 512;

/// Records an administrative request and its outcome.
pub(crate) fn done(
    who: &Identity,
    method: &str,
    params: Option<&RawValue>,
    answer: &Result<Box<RawValue>, ErrorObjectOwned>,
) {
    let mut params = params.map_or_else(String::new, |params| params.get().to_owned());
    cut(&mut params, PARAMS_LIMIT);
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

/// Records a refusal for lack of a role.
pub(crate) fn denied(who: &Identity, method: &str, why: &Denied) {
    tracing::warn!(target: "hotmerge::audit", %who, method, outcome = "denied", "{why}");
}
