//! What plugins say, as it goes into the host's log.
//!
//! Absent on purpose: what happens to plugins, which their host records.

use hotmerge_abi::level;
use hotmerge_loader::LogRecord;
use hotmerge_meta::{PluginMeta, PluginName};

use crate::failure::hex;

/// Writes a plugin's record into the host's log. `generation` is that of the version that says it, 0
/// before it takes calls.
pub fn record(meta: &PluginMeta, generation: u64, record: LogRecord<'_>) {
    let (plugin, version) = (meta.name.as_str(), &meta.version);
    let generation = (generation > 0).then_some(generation);
    let trace = record.call.map(|call| hex(&call.trace_id));
    let span = record.call.map(|call| hex(&call.span_id));
    macro_rules! emit {
        ($level:expr) => {
            tracing::event!(
                target: "plugin",
                $level,
                plugin,
                %version,
                generation,
                trace_id = trace.as_deref(),
                span_id = span.as_deref(),
                "{}",
                record.message
            )
        };
    }
    match record.level {
        level::ERROR => emit!(tracing::Level::ERROR),
        level::WARN => emit!(tracing::Level::WARN),
        level::INFO => emit!(tracing::Level::INFO),
        level::DEBUG => emit!(tracing::Level::DEBUG),
        _ => emit!(tracing::Level::TRACE),
    }
}

/// Writes a line that a plugin printed to its standard output or error.
pub(crate) fn printed(plugin: &PluginName, stream: &str, line: &str) {
    tracing::info!(target: "plugin", %plugin, stream, "{line}");
}
