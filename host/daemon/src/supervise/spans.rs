//! Spans that say which plugin and which attempt a record is about.
//!
//! Absent on purpose: a span per call of a plugin in the host's own process, which would cost more
//! than the call.

use hotmerge_lifecycle::Ticket;
use hotmerge_meta::PluginName;
use tracing::{debug_span, span::EnteredSpan};

/// What this thread does from here on is about this attempt.
pub(super) fn attempt(plugin: &PluginName, ticket: Ticket) -> EnteredSpan {
    let parent = debug_span!(target: "hotmerge::plugin", "plugin", %plugin);
    let ticket = ticket.0;
    debug_span!(target: "hotmerge::plugin", parent: &parent, "attempt", ticket).entered()
}
