//! What an operator chooses of a sink.
//!
//! Absent on purpose: reading it from a file.

use std::{fmt, path::PathBuf};

use hotmerge_meta::Trust;

use crate::routes::Route;

/// Sinks, and which records go to which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The sinks; their names differ.
    pub sinks: Vec<SinkSettings>,
    /// The routes. What they name beside the sinks leads nowhere.
    pub routes: Vec<Route>,
}

/// The name of the sink, and the kind, that a host has without any choice.
const STDERR: &str = "stderr";

impl Default for Plan {
    /// Every record goes to standard error.
    fn default() -> Self {
        Self {
            sinks: vec![SinkSettings {
                name: STDERR.to_owned(),
                queue_bytes: 4 << 20,
                kind: Kind::Stderr,
            }],
            routes: vec![Route {
                to: vec![STDERR.to_owned()],
                ..Route::default()
            }],
        }
    }
}

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSettings {
    /// Its name.
    pub name: String,
    /// The memory for records that wait, in bytes, approximately.
    pub queue_bytes: usize,
    /// Where its records go.
    pub kind: Kind,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To standard error, as `hotmerge serve --log-format` says.
    Stderr,
    /// To a file, one JSON object per line.
    File(FileSettings),
    /// To the journal of systemd.
    Journald {
        /// Its socket.
        socket: PathBuf,
    },
    /// To a syslog server, as RFC 5424 has it.
    Syslog {
        /// Where it listens.
        address: SyslogAddress,
        /// The facility's number, from 0 to 23.
        facility: u8,
    },
}

/// A file of JSON lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// Its path.
    pub path: PathBuf,
    /// The size at which it is rotated, in bytes; 0 for never.
    pub max_bytes: u64,
    /// How many rotated files are kept.
    pub keep: u32,
    /// Who may own the directories on the way to it.
    pub trust: Trust,
}

impl Kind {
    /// Its name in a configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stderr => STDERR,
            Self::File(_) => "file",
            Self::Journald { .. } => "journald",
            Self::Syslog { .. } => "syslog",
        }
    }

    /// The cargo feature that this program would need for it and was built without.
    pub fn missing_feature(&self) -> Option<&'static str> {
        let (is_built, feature) = match self {
            Self::Stderr => return None,
            Self::File(_) => (cfg!(feature = "log-file"), "log-file"),
            Self::Journald { .. } => (cfg!(feature = "log-journald"), "log-journald"),
            Self::Syslog { .. } => (cfg!(feature = "log-syslog"), "log-syslog"),
        };
        (!is_built).then_some(feature)
    }
}

/// Where a syslog server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A datagram socket, as `/dev/log`.
    Unix(PathBuf),
    /// `HOST:PORT`, one record per datagram.
    Udp(String),
    /// `HOST:PORT`, each record preceded by its length (RFC 6587).
    Tcp(String),
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
