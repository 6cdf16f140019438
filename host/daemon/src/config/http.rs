//! Where and within which limits a host answers HTTP: the section `http` of its configuration.
//!
//! Absent on purpose: the HTTP front itself, and who may do what, which is the section `door`'s.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use hotmerge_meta::PluginName;
use serde::Deserialize;

/// The HTTP front. It is off until it listens somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Where it listens.
    pub listen: Vec<Listen>,
    /// Names under which clients may reach it besides `localhost` and numeric addresses. Others
    /// are refused, so that a web page cannot reach it under a name of its own.
    pub names: Vec<String>,
    /// A file of bearer tokens, one `NAME = "SECRET"` per line (TOML).
    pub tokens: Option<PathBuf>,
    /// The plugins that must be live for `/readyz`; without any, all that are installed.
    pub ready: Vec<PluginName>,
    /// The longest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// The longest reply of a plugin, in bytes.
    pub max_reply_bytes: usize,
    /// The longest head of a request, in bytes.
    pub max_header_bytes: usize,
    /// How long a client may take for the head of a request, and between requests, in
    /// milliseconds.
    pub header_ms: u64,
    /// How long a client may take for the body of a request, in milliseconds.
    pub body_ms: u64,
    /// The deadline of a call that names none, and the longest that may be named, in milliseconds.
    pub deadline_ms: u64,
    /// The most connections at a time.
    pub max_connections: usize,
    /// The most calls at a time.
    pub max_calls: usize,
    /// The most calls at a time from one address, user or token.
    pub max_calls_per_client: usize,
    /// How long running requests may take when the host stops, in milliseconds.
    pub stop_ms: u64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            names: Vec::new(),
            tokens: None,
            ready: Vec::new(),
            max_body_bytes: 16 << 20,
            max_reply_bytes: 64 << 20,
            max_header_bytes: 16 << 10,
            header_ms: 30_000,
            body_ms: 30_000,
            deadline_ms: 30_000,
            max_connections: 1024,
            max_calls: 128,
            max_calls_per_client: 64,
            stop_ms: 10_000,
        }
    }
}

/// One place to listen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// `tcp:ADDRESS:PORT`; port 0 for any free one.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `systemd`: every listening socket that the service manager passed.
    Systemd,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd => f.write_str("systemd"),
        }
    }
}

/// The text names no place to listen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address to listen on; write `tcp:127.0.0.1:8080`, `unix:/run/…` or `systemd`"
)]
pub struct ListenError(String);

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let wrong = || ListenError(text.to_owned());
        match text.split_once(':') {
            None if text == "systemd" => Ok(Self::Systemd),
            Some(("tcp", address)) => address.parse().map(Self::Tcp).map_err(|_| wrong()),
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = ListenError;

    fn try_from(text: String) -> Result<Self, ListenError> {
        text.parse()
    }
}

impl HttpConfig {
    /// Whether it listens anywhere.
    pub fn is_on(&self) -> bool {
        !self.listen.is_empty()
    }

    /// How long the head of a request may take.
    pub fn header(&self) -> Duration {
        Duration::from_millis(self.header_ms)
    }

    /// How long the body of a request may take.
    pub fn body(&self) -> Duration {
        Duration::from_millis(self.body_ms)
    }

    /// The longest deadline of a call.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    /// How long running requests may take when the host stops.
    pub fn stop(&self) -> Duration {
        Duration::from_millis(self.stop_ms)
    }

    /// The first key whose value is out of range, with its minimum and maximum. The maximum of times is
    /// `longest_ms`.
    pub(super) fn out_of_range(&self, longest_ms: u64) -> Option<(&'static str, u64, u64)> {
        let ms = longest_ms;
        let all = [
            ("max_body_bytes", self.max_body_bytes as u64, 0, 1 << 31),
            ("max_reply_bytes", self.max_reply_bytes as u64, 0, 1 << 31),
            // The minimum of hyper's own buffer.
            (
                "max_header_bytes",
                self.max_header_bytes as u64,
                8 << 10,
                1 << 20,
            ),
            ("header_ms", self.header_ms, 1, ms),
            ("body_ms", self.body_ms, 1, ms),
            ("deadline_ms", self.deadline_ms, 1, ms),
            ("max_connections", self.max_connections as u64, 1, 1 << 20),
            ("max_calls", self.max_calls as u64, 1, 1 << 12),
            (
                "max_calls_per_client",
                self.max_calls_per_client as u64,
                1,
                1 << 12,
            ),
            ("stop_ms", self.stop_ms, 0, ms),
        ];
        let wrong = all
            .into_iter()
            .find(|(_, value, least, most)| !(least..=most).contains(&value));
        wrong.map(|(key, _, least, most)| (key, least, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_are_read_as_written() {
        for text in [
            "tcp:127.0.0.1:8080",
            "tcp:[::1]:0",
            "unix:/run/a.sock",
            "systemd",
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_invalid_listen_address_is_refused() {
        for text in [
            "",
            "8080",
            "tcp:localhost:80",
            "unix:a.sock",
            "udp:127.0.0.1:1",
            "systemd:",
        ] {
            let refused = text.parse::<Listen>().unwrap_err().to_string();
            assert!(
                refused.contains("is not an address to listen on"),
                "{text}: {refused}"
            );
        }
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        for text in ["max_calls = 0", "max_header_bytes = 100", "deadline_ms = 0"] {
            let config: HttpConfig = toml::from_str(text).unwrap();
            assert!(config.out_of_range(1000).is_some(), "{text}");
        }
        assert_eq!(HttpConfig::default().out_of_range(1 << 40), None);
    }
}
