//! The program's log: to standard error, for people or as JSON lines, and never waited for.

use std::{
    io::{self, IsTerminal},
    sync::OnceLock,
};

pub use hotmerge_meta::plain;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, field::MakeExt as _, filter::ParseError, fmt::format::debug_fn,
};

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// How log records look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One line a record, for people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// Why logging does not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is none.
    #[error("`{filter}` is no log filter: {source}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Somebody logs already in this process.
    #[error("failed to start logging: {0}")]
    Start(Box<dyn std::error::Error + Send + Sync>),
}

/// Starts logging to standard error. Records that find no room are dropped and counted. The
/// guard writes out what is left when it is dropped.
///
/// # Errors
/// If `filter` is no filter (`info`, `plugin=debug,warn`, …), or logging is on already.
pub fn start(format: Format, filter: &str) -> Result<WorkerGuard, LogError> {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .thread_name("log")
        .finish(io::stderr());
    let _ = DROPPED.set(writer.error_counter());
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LogError::Filter {
            filter: filter.to_owned(),
            source,
        })?;
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(writer);
    match format {
        Format::Text => {
            let fields = debug_fn(|writer, field, value| {
                let text = plain(&format!("{value:?}"));
                match field.name() {
                    "message" => write!(writer, "{text}"),
                    name => write!(writer, "{name}={text}"),
                }
            });
            builder.fmt_fields(fields.delimited(" ")).try_init()
        }
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(LogError::Start)?;
    Ok(guard)
}

/// How many records found no room.
pub fn dropped() -> u64 {
    DROPPED
        .get()
        .map_or(0, |counter| counter.dropped_lines() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_without_orders_to_terminals() {
        assert_eq!(plain("a \"b\" \\ ü 日本"), "a \"b\" \\ ü 日本");
        assert_eq!(plain("\x1b[2J\r\n\u{202e}x"), "\\u{1b}[2J\\r\\n\\u{202e}x");
    }
}
