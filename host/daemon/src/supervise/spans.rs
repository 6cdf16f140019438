//! Spans that name the plugin and the attempt of a log record.
//!
//! Absent on purpose: a span per call of a plugin in the host's own process, which would cost more
//! than the call.

use hotmerge_lifecycle::Ticket;
use hotmerge_meta::PluginName;
use tracing::{debug_span, span::EnteredSpan};

/// Enters the span of an attempt.
pub(super) fn attempt(plugin: &PluginName, ticket: Ticket) -> EnteredSpan {
    let parent = debug_span!(target: "hotmerge::plugin", "plugin", %plugin);
    let ticket = ticket.0;
    debug_span!(target: "hotmerge::plugin", parent: &parent, "attempt", ticket).entered()
}
