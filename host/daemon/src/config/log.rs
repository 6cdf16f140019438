//! How much of its log a host keeps in memory, and where else its records go: the section `log` of its
//! configuration.
//!
//! Absent on purpose: the log, which belongs to the embedding program.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use hotmerge_meta::{PluginName, control::LogLevel};
use serde::Deserialize;

use super::similar::similar;

/// The most sinks.
const SINKS: usize = 32;
/// The longest name of a sink, which is a label of metrics.
const LONGEST_NAME: usize = 32;
/// The first part of the targets of the host's own records, and all of them.
const OWN: &str = "hotmerge";
const TARGETS: [&str; 8] = [
    OWN,
    "hotmerge::audit",
    "hotmerge::door",
    "hotmerge::host",
    "hotmerge::plugin",
    "hotmerge::watch",
    "hotmerge::worker",
    "plugin",
];

/// How much of its log a host keeps in memory, and where else its records go.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LogConfig {
    /// The most records; 0 keeps none.
    pub records: usize,
    /// The most bytes, approximately.
    pub bytes: usize,
    /// Where records can go. Without any, all go to standard error.
    pub sink: Vec<SinkConfig>,
    /// Which records go where. With sinks, a record that no route matches goes nowhere else.
    pub route: Vec<RouteConfig>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            records: 4096,
            bytes: 4 << 20,
            sink: Vec::new(),
            route: Vec::new(),
        }
    }
}

/// Where records can go. Each type has its own settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SinkConfig {
    /// Its name, which routes use.
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: SinkType,
    /// The memory for records that wait for it, in bytes.
    #[serde(default = "default_queue_bytes")]
    pub queue_bytes: usize,
    /// Of a file: its path.
    pub path: Option<PathBuf>,
    /// Of a file: the size at which it is rotated, in bytes; 0 for never, which is the default.
    pub max_bytes: Option<u64>,
    /// Of a file: how many rotated files are kept, 5 by default.
    pub keep: Option<u32>,
    /// Of the journal: its socket, `/run/systemd/journal/socket` by default.
    pub socket: Option<PathBuf>,
    /// Of syslog: `unix:PATH`, `udp:HOST:PORT` or `tcp:HOST:PORT`, by default `unix:/dev/log`.
    pub address: Option<SyslogAddress>,
    /// Of syslog: the facility, `daemon` by default.
    pub facility: Option<Facility>,
}

fn default_queue_bytes() -> usize {
    4 << 20
}

/// What a sink is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkType {
    /// Standard error.
    Stderr,
    /// A file with one JSON object per line.
    File,
    /// The journal of systemd.
    Journald,
    /// A syslog server.
    Syslog,
}

/// Where a syslog server listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SyslogAddress {
    /// A datagram socket, as `/dev/log`.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Udp(String),
    /// `HOST:PORT`.
    Tcp(String),
}

/// The text is not an address of a syslog server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address of a syslog server; write `unix:/dev/log`, `udp:HOST:PORT` or `tcp:HOST:PORT`"
)]
pub struct SyslogAddressError(String);

impl FromStr for SyslogAddress {
    type Err = SyslogAddressError;

    fn from_str(text: &str) -> Result<Self, SyslogAddressError> {
        let with_port = |rest: &str| {
            let (host, port) = rest.rsplit_once(':')?;
            let is_address = !host.is_empty() && port.parse::<u16>().is_ok_and(|it| it > 0);
            is_address.then(|| rest.to_owned())
        };
        let found = match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Some(Self::Unix(path.into())),
            Some(("udp", rest)) => with_port(rest).map(Self::Udp),
            Some(("tcp", rest)) => with_port(rest).map(Self::Tcp),
            _ => None,
        };
        found.ok_or_else(|| SyslogAddressError(text.to_owned()))
    }
}

impl TryFrom<String> for SyslogAddress {
    type Error = SyslogAddressError;

    fn try_from(text: String) -> Result<Self, SyslogAddressError> {
        text.parse()
    }
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// A facility of syslog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "RFC 5424 names them")]
pub enum Facility {
    User = 1,
    #[default]
    Daemon = 3,
    Local0 = 16,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

/// Which records go where. A condition that is missing matches every record.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RouteConfig {
    /// The least severe level.
    pub level: Option<LogLevel>,
    /// The targets, or their first parts.
    #[serde(default)]
    pub sources: Vec<String>,
    /// The plugins that logged the record, or that it is about.
    #[serde(default)]
    pub plugins: Vec<PluginName>,
    /// Fields, all of which must have these values: texts, numbers or booleans.
    #[serde(default)]
    pub fields: BTreeMap<String, toml::Value>,
    /// The names of the sinks.
    pub to: Vec<String>,
}

impl RouteConfig {
    /// The values of its fields as texts.
    pub fn fields(&self) -> BTreeMap<String, String> {
        let fields = self.fields.iter();
        fields
            .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
            .collect()
    }
}

/// A value as records have it, unless it is of another kind than fields of records are.
fn text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

impl LogConfig {
    /// Checks sinks and routes together.
    ///
    /// # Errors
    /// What is wrong; it begins with the key in backticks.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.sink.len() > SINKS {
            return Err(format!("`log.sink` has more than {SINKS} entries"));
        }
        for (number, sink) in self.sink.iter().enumerate() {
            sink.check(&self.sink[..number])
                .map_err(|(key, reason)| format!("`log.sink[{number}].{key}` {reason}"))?;
        }
        if let ([], [_, ..]) = (&*self.sink, &*self.route) {
            return Err(
                "`log.route` has routes, but there is no sink to which they could lead; add a `[[log.sink]]`"
                    .to_owned(),
            );
        }
        for (number, route) in self.route.iter().enumerate() {
            route
                .check(&self.sink)
                .map_err(|(key, reason)| format!("`log.route[{number}].{key}` {reason}"))?;
        }
        let used = |sink: &SinkConfig| self.route.iter().any(|it| it.to.contains(&sink.name));
        match self.sink.iter().position(|sink| !used(sink)) {
            None => Ok(()),
            Some(number) => Err(format!(
                "`log.sink[{number}].name`: no route leads to `{}`; add a `[[log.route]]` with it in `to`",
                self.sink[number].name
            )),
        }
    }
}

/// A key within an entry, and what is wrong with its value.
type Wrong = (String, String);

fn wrong(key: &str, reason: impl Into<String>) -> Wrong {
    (key.to_owned(), reason.into())
}

impl SinkConfig {
    fn check(&self, before: &[Self]) -> Result<(), Wrong> {
        let is_part = |sign: u8| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == b'-';
        let is_name = self.name.bytes().all(is_part) && !self.name.is_empty();
        if !is_name || self.name.len() > LONGEST_NAME {
            let reason = format!(
                "must be of lower-case letters, digits and `-`, and not longer than {LONGEST_NAME}"
            );
            return Err(wrong("name", reason));
        }
        if before.iter().any(|it| it.name == self.name) {
            return Err(wrong("name", "is the name of another sink, too"));
        }
        let is_stderr = |it: &Self| it.kind == SinkType::Stderr;
        if is_stderr(self) && before.iter().any(is_stderr) {
            return Err(wrong(
                "type",
                "is `stderr` for another sink, too; there is only one",
            ));
        }
        self.check_keys()?;
        // Not less than a few records, and little enough to calculate with.
        if !(64 << 10..=1 << 32).contains(&self.queue_bytes) {
            return Err(wrong(
                "queue_bytes",
                format!("must be from {} to {}", 64 << 10, 1_u64 << 32),
            ));
        }
        if self
            .max_bytes
            .is_some_and(|it| it != 0 && !(4096..=1 << 50).contains(&it))
        {
            return Err(wrong(
                "max_bytes",
                format!("must be 0 or from 4096 to {}", 1_u64 << 50),
            ));
        }
        if self.keep.is_some_and(|it| !(1..=1000).contains(&it)) {
            return Err(wrong("keep", "must be from 1 to 1000"));
        }
        for (key, path) in [("path", &self.path), ("socket", &self.socket)] {
            if path
                .as_ref()
                .is_some_and(|it| !it.is_absolute() || it.file_name().is_none())
            {
                return Err(wrong(key, "must be an absolute path of a file"));
            }
        }
        Ok(())
    }

    /// Checks that it has the keys of its type and no others.
    fn check_keys(&self) -> Result<(), Wrong> {
        use SinkType::{File, Journald, Syslog};
        let keys = [
            ("path", self.path.is_some(), File),
            ("max_bytes", self.max_bytes.is_some(), File),
            ("keep", self.keep.is_some(), File),
            ("socket", self.socket.is_some(), Journald),
            ("address", self.address.is_some(), Syslog),
            ("facility", self.facility.is_some(), Syslog),
        ];
        if let Some((key, _, kind)) = keys
            .iter()
            .find(|(_, is_set, of)| *is_set && *of != self.kind)
        {
            let kind = format!("{kind:?}").to_lowercase();
            return Err(wrong(
                key,
                format!("is for sinks of the type `{kind}` only"),
            ));
        }
        match (self.kind, &self.path) {
            (File, None) => Err(wrong("type", "is `file`, which needs a `path`")),
            _ => Ok(()),
        }
    }
}

impl RouteConfig {
    fn check(&self, sinks: &[SinkConfig]) -> Result<(), Wrong> {
        if self.to.is_empty() {
            return Err(wrong("to", "names no sink"));
        }
        let names = || sinks.iter().map(|it| it.name.as_str());
        if let Some(name) = self.to.iter().find(|name| !names().any(|it| it == **name)) {
            let reason = format!(
                "names the sink `{name}`, which there is not{}",
                did_you_mean(name, names())
            );
            return Err(wrong("to", reason));
        }
        // Libraries may be named as well.
        let is_own = |source: &str| source.split("::").next() == Some(OWN);
        let unknown = |source: &&String| {
            !TARGETS.contains(&source.as_str())
                && (is_own(source) || similar(source, TARGETS).is_some())
        };
        if let Some(source) = self.sources.iter().find(unknown) {
            let near = did_you_mean(source, TARGETS);
            return Err(wrong(
                "sources",
                format!("names `{source}`, which logs nothing{near}"),
            ));
        }
        match self.fields.iter().find(|(_, value)| text(value).is_none()) {
            None => Ok(()),
            Some((name, _)) => Err(wrong(
                &format!("fields.{name}"),
                "must be a text, a number or a boolean",
            )),
        }
    }
}

fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    similar(name, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::SyslogAddress;
    use crate::Config;

    const FILE: &str = "[[log.sink]]\nname = \"file\"\ntype = \"file\"\npath = \"/a\"\n";
    const ROUTE: &str = "[[log.route]]\nto = [\"file\"]\n";

    #[test]
    fn wrong_sinks_and_routes_are_located() {
        for (text, place) in [
            (
                format!("{FILE}[[log.route]]\nto = [\"fiel\"]\n"),
                "line 6, column 6: `log.route[0].to` names the sink `fiel`, which there is not; did you mean `file`?",
            ),
            (
                format!(
                    "{FILE}{ROUTE}[[log.route]]\nto = [\"file\"]\nsources = [\"hotmerge::dor\"]\n"
                ),
                "line 9, column 11: `log.route[1].sources` names `hotmerge::dor`, which logs nothing; did you mean `hotmerge::door`?",
            ),
            (
                format!("{FILE}{ROUTE}[[log.route]]\nto = [\"file\"]\nfields = {{ a = [] }}\n"),
                "line 9, column 16: `log.route[1].fields.a` must be",
            ),
            (
                format!("{FILE}{FILE}{ROUTE}"),
                "line 6, column 8: `log.sink[1].name` is the name of another sink",
            ),
            (
                format!("{FILE}socket = \"/s\"\n{ROUTE}"),
                "line 5, column 10: `log.sink[0].socket` is for sinks of the type `journald` only",
            ),
            (
                "[[log.sink]]\nname = \"a\"\ntype = \"file\"\n".to_owned(),
                "line 3, column 8: `log.sink[0].type` is `file`, which needs a `path`",
            ),
            (
                FILE.to_owned(),
                "line 2, column 8: `log.sink[0].name`: no route leads to `file`",
            ),
            (
                ROUTE.to_owned(),
                "line 1, column 1: `log.route` has routes, but there is no sink",
            ),
            (
                "[[log.sink]]\nname = \"a\"\ntype = \"jounald\"\n".to_owned(),
                "line 3, column 8: `log.sink.type`: unknown variant `jounald`; did you mean `journald`?",
            ),
            (
                format!("{FILE}{ROUTE}levl = \"warn\"\n"),
                "line 7, column 1: unknown field `levl`; did you mean `level`?",
            ),
        ] {
            let refused = Config::parse(&text).unwrap_err().to_string();
            assert!(refused.starts_with(place), "{text}\n{refused}");
        }
    }

    #[test]
    fn syslog_addresses_are_read_as_they_are_written() {
        for text in [
            "unix:/dev/log",
            "udp:127.0.0.1:514",
            "tcp:[::1]:601",
            "tcp:logs:601",
        ] {
            assert_eq!(text.parse::<SyslogAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "unix:log",
            "udp:host",
            "tcp::1",
            "udp:host:0",
            "tcp:host:65536",
            "http:a:1",
        ] {
            let refused = text.parse::<SyslogAddress>().unwrap_err().to_string();
            assert!(
                refused.contains("is not an address of a syslog server"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_route_may_name_a_library() {
        for source in ["notify", "notify::inotify", "plugin", "hotmerge"] {
            let text = format!("{FILE}{ROUTE}sources = [\"{source}\"]\n");
            Config::parse(&text).unwrap();
        }
    }

    #[test]
    fn values_of_fields_become_texts() {
        let text = format!("{FILE}{ROUTE}fields = {{ a = 1, b = true, c = \"x\", d = 0.5 }}\n");
        let config = Config::parse(&text).unwrap();
        let fields = config.log.route[0].fields();
        let fields: Vec<_> = fields.values().map(String::as_str).collect();
        assert_eq!(fields, ["1", "true", "x", "0.5"]);
    }
}
