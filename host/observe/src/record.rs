//! A record of the log, as it is kept and delivered.
//!
//! Absent on purpose: where it comes from and where it goes.

use std::{borrow::Cow, time::SystemTime};

use hotmerge_meta::control::{LogEntry, LogLevel};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

/// The approximate size of a record without its texts.
const OVERHEAD: usize = size_of::<Record>() + 64;

/// The target of what plugins log themselves.
const PLUGIN: &str = "plugin";

/// Who logged a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host.
    Host,
    /// A plugin.
    Plugin,
}

impl Source {
    /// The source of records with this target.
    pub fn of(target: &str) -> Self {
        match target == PLUGIN {
            true => Self::Plugin,
            false => Self::Host,
        }
    }
}

/// A record of the log.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it was logged.
    pub time: SystemTime,
    /// Its severity.
    pub level: LogLevel,
    /// The part of the host that logged it; `plugin` for records of plugins.
    pub target: Cow<'static, str>,
    /// The plugin that it is about, or that logged it.
    pub plugin: Option<String>,
    /// The version that logged it.
    pub version: Option<String>,
    /// The generation that logged it.
    pub generation: Option<u64>,
    /// The trace of the call during which it was logged.
    pub trace_id: Option<String>,
    /// The span of that call.
    pub span_id: Option<String>,
    /// The message.
    pub message: String,
    /// All other fields, by name.
    pub fields: Map<String, Value>,
}

/// A record as one JSON object, with the names that `hotmerge logs --json` has.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    level: LogLevel,
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<&'a str>,
    message: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: &'a Map<String, Value>,
}

impl Record {
    /// A record with a level, a target and a message, of this moment.
    pub fn new(level: LogLevel, target: impl Into<Cow<'static, str>>) -> Self {
        Self {
            time: SystemTime::now(),
            level,
            target: target.into(),
            plugin: None,
            version: None,
            generation: None,
            trace_id: None,
            span_id: None,
            message: String::new(),
            fields: Map::new(),
        }
    }

    /// Who logged it.
    pub fn source(&self) -> Source {
        Source::of(&self.target)
    }

    /// The memory that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        let texts = [&self.plugin, &self.version, &self.trace_id, &self.span_id];
        let texts = texts.into_iter().flatten().map(String::len);
        let fields = self.fields.iter().map(|(name, value)| {
            let value = value.as_str().map_or(size_of::<Value>(), str::len);
            OVERHEAD / 4 + name.len() + value
        });
        OVERHEAD + self.message.len() + texts.sum::<usize>() + fields.sum::<usize>()
    }

    /// When it was logged, RFC 3339 in UTC.
    pub(crate) fn time(&self) -> String {
        let time = Timestamp::try_from(self.time).unwrap_or(Timestamp::UNIX_EPOCH);
        format!("{time:.6}")
    }

    /// As the control socket sends it.
    pub(crate) fn entry(&self, position: u64) -> LogEntry {
        LogEntry {
            position,
            time: self.time(),
            level: self.level.to_string(),
            target: self.target.clone().into_owned(),
            plugin: self.plugin.clone(),
            version: self.version.clone(),
            generation: self.generation,
            trace_id: self.trace_id.clone(),
            span_id: self.span_id.clone(),
            message: self.message.clone(),
            fields: self.fields.clone(),
        }
    }

    /// Appends it as a JSON object on a line of its own.
    #[cfg_attr(
        not(feature = "log-file"),
        expect(dead_code, reason = "files alone have lines")
    )]
    pub(crate) fn write_line(&self, to: &mut Vec<u8>) {
        let line = Line {
            time: self.time(),
            level: self.level,
            target: &self.target,
            plugin: self.plugin.as_deref(),
            version: self.version.as_deref(),
            generation: self.generation,
            trace_id: self.trace_id.as_deref(),
            span_id: self.span_id.as_deref(),
            message: &self.message,
            fields: &self.fields,
        };
        let begin = to.len();
        // Maps with texts as keys and a vector to write to cannot fail.
        if serde_json::to_writer(&mut *to, &line).is_err() {
            to.truncate(begin);
            to.extend_from_slice(b"{}");
        }
        to.push(b'\n');
    }

    /// Everything beside time, level and message, by name, as texts.
    #[cfg_attr(
        not(any(feature = "log-journald", feature = "log-syslog")),
        expect(dead_code, reason = "only these have fields of their own")
    )]
    pub(crate) fn context(&self) -> Vec<(&str, String)> {
        let known = [
            ("plugin", self.plugin.clone()),
            ("version", self.version.clone()),
            ("generation", self.generation.map(|it| it.to_string())),
            ("trace_id", self.trace_id.clone()),
            ("span_id", self.span_id.clone()),
        ];
        let known = known
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let others = self.fields.iter();
        known
            .chain(others.map(|(name, value)| (name.as_str(), text(value))))
            .collect()
    }
}

/// A field's value as a text.
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
