//! The log records of plugins, as they go into the host's log.

use hotmerge_abi::level;
use hotmerge_loader::LogRecord;

use crate::failure::hex;

/// Writes a plugin's record into the host's log.
pub fn record(plugin: &str, record: LogRecord<'_>) {
    let trace = record.call.map(|call| hex(&call.trace_id));
    let span = record.call.map(|call| hex(&call.span_id));
    macro_rules! emit {
        ($level:expr) => {
            tracing::event!(
                target: "plugin",
                $level,
                plugin,
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
