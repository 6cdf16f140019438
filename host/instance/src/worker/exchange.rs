//! One request to a worker and its answer.

use hotmerge_loader::{CallError, Reply};
use hotmerge_wire::{Answer, NoAnswer, Request, op};

use crate::worker::process::Link;

/// Room for the reason of a refusal where nothing else is expected, in bytes.
pub(super) const REASON_LIMIT: usize = 64 << 10;

/// Why a request brought no reply.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The plugin answered with an error.
    Refused(CallError),
    /// There was no answer.
    Failed(NoAnswer),
}

/// Asks a worker, and puts its answer into `reply`.
pub(super) fn exchange(
    link: &Link,
    request: &Request<'_>,
    reply: &mut Reply,
) -> Result<(), Unanswered> {
    match link.caller.ask(request, reply.take_buffer()) {
        Ok(Answer::Reply { bytes, media_type }) => {
            reply.fill(bytes, &media_type);
            Ok(())
        }
        Ok(Answer::Refusal { status, reason }) => {
            // Behind a zero byte are media types.
            let method = request.method.split('\0').next().unwrap_or_default();
            let error = CallError::of(status, &reason, method);
            Err(Unanswered::Refused(error))
        }
        Err(failure) => Err(Unanswered::Failed(failure)),
    }
}

/// What a plugin does while its worker carries out an operation other than a call of a method, as a
/// clause that follows "while".
pub(super) fn doing(op: u32) -> Option<&'static str> {
    Some(match op {
        op::LOAD => "it was loaded",
        op::CONSTRUCT => "its constructors ran",
        op::START => "it started",
        op::SELF_CHECK => "it checked itself",
        op::DESCRIBE => "it described itself",
        op::SAVE => "it saved its state",
        op::RESTORE => "it restored a state",
        op::TEARDOWN => "it was torn down",
        op::EXIT => "it ended",
        _ => return None,
    })
}
