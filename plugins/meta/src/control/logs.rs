//! Reading the host's log over the control socket.
//!
//! Absent on purpose: keeping records, and who may read them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::PluginName;

/// The severity of a record, the least severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Each step.
    Trace,
    /// Each transition.
    Debug,
    /// Normal operation.
    Info,
    /// It may need an operator.
    Warn,
    /// It needs an operator.
    Error,
}

/// A text that names no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a log level; write `error`, `warn`, `info`, `debug` or `trace`")]
pub struct LogLevelError(String);

impl LogLevel {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Trace, "trace"),
        (Self::Debug, "debug"),
        (Self::Info, "info"),
        (Self::Warn, "warn"),
        (Self::Error, "error"),
    ];
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.iter().find(|(level, _)| level == self);
        f.pad(found.map_or("", |(_, name)| name))
    }
}

impl FromStr for LogLevel {
    type Err = LogLevelError;

    fn from_str(text: &str) -> Result<Self, LogLevelError> {
        let mut all = Self::ALL.iter();
        let found = all.find(|(_, name)| name.eq_ignore_ascii_case(text));
        found
            .map(|(level, _)| *level)
            .ok_or_else(|| LogLevelError(text.to_owned()))
    }
}

/// Which records to return.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogsParams {
    /// From this position on; `None` for all records that the host keeps.
    pub from: Option<u64>,
    /// Only records about these plugins, or by them; without any, all records.
    pub plugins: Vec<PluginName>,
    /// Only records of this severity or above.
    pub level: Option<LogLevel>,
    /// Only records since then, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only records of this trace, 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// How long to wait for a record if there is none, in milliseconds; the host waits for some
    /// seconds at most.
    pub wait_ms: u64,
}

/// Records, oldest first; if there are many, a part of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsReply {
    /// The requested records.
    pub records: Vec<LogEntry>,
    /// The value of [`LogsParams::from`] for the next request.
    pub next: u64,
    /// The position of the log's end at this moment.
    pub end: u64,
    /// How many records since the requested position the host no longer keeps.
    pub lost: u64,
}

/// A record of the host's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Counts records since the host's start, from 0.
    pub position: u64,
    /// When, RFC 3339, UTC.
    pub time: String,
    /// Its [`LogLevel`].
    pub level: String,
    /// The part of the host that logged it; `plugin` for records of plugins.
    pub target: String,
    /// The plugin that it is about, or that logged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// The version that logged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The generation that logged it, counted from 1; none before the version takes calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The trace of the call during which it was logged, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The span of that call, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// The message.
    pub message: String,
    /// All other fields, by name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

/// A destination of the host's log, and what became of the records that were meant for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSinkStatus {
    /// Its name in the configuration.
    pub name: String,
    /// What it is: `stderr`, `file`, `journald` or `syslog`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Records that it took.
    pub delivered: u64,
    /// Records that wait for it.
    pub waiting: u64,
    /// Records that were given up, because it refused them or failed for too long.
    pub failed: u64,
    /// Records that found no room before it.
    pub dropped: LogDropped,
    /// Whether it does not work at the moment.
    pub failing: bool,
    /// Why a record was last not delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LogSinkError>,
}

/// Records that found no room, by who logged them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDropped {
    /// The host's own.
    pub host: u64,
    /// Its plugins'.
    pub plugins: u64,
}

/// Why a record was not delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSinkError {
    /// When, RFC 3339.
    pub time: String,
    /// Why.
    pub reason: String,
}
