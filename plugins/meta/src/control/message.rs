//! Parameters and results of the methods.

use std::{fmt, path::PathBuf, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use semver::Version;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::KeyChange;
use crate::{Digest, PluginName};

/// What the host did with a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new and active.
    Loaded,
    /// A new version replaced the running one.
    Reloaded,
    /// The same hash runs already.
    Unchanged,
    /// It was refused; the previous version still runs.
    Refused,
    /// Its package and the plugin are gone.
    Removed,
    /// It takes a share of the calls and replaces the live version if it does well.
    Trying,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loaded => "loaded",
            Self::Reloaded => "reloaded",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Removed => "removed",
            Self::Trying => "trying",
        })
    }
}

/// Parameters of a rescan and its report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadParams {
    /// Report these even if nothing happened to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugins: Option<Vec<PluginName>>,
    /// Report everything since this position in the host's history (see
    /// [`method::POSITION`](super::method::POSITION)): a watcher may have been faster than
    /// the request. From the request on if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Retry the named plugins even if they were refused before [`since`](Self::since).
    pub retry: bool,
    /// Wait for and report only the named plugins: the others do not concern the
    /// caller.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub only: bool,
    /// Read the configuration again first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub config: bool,
    /// Discard the running versions' state where named plugins are retried, so that a version that does not
    /// save it cannot block its replacement.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub without_state: bool,
}

/// The result of reading the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigReport {
    /// The file, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Why it cannot be used; then the previous one stays in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Keys whose new values wait for a restart of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<KeyChange>,
    /// Plugins that start again because of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restarted: Vec<PluginName>,
}

/// The result of a rescan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Plugins that changed and plugins that were requested, by name.
    pub plugins: Vec<PluginReport>,
    /// Packages and files in the plugin directory that cannot be used.
    pub problems: Vec<Problem>,
    /// How many plugins the host knows; those that are not listed are unchanged.
    pub installed: u64,
    /// The host's plugin directory.
    pub plugin_dir: PathBuf,
    /// The result of reading the configuration again, if that was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigReport>,
    /// From the request to the last switch, in milliseconds.
    pub took_ms: f64,
}

/// The result of a rescan for one plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginReport {
    /// Its name.
    pub plugin: PluginName,
    /// The action.
    pub action: Action,
    /// Hash of the previous version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_hash: Option<Digest>,
    /// Hash of the offered version; none for a removed plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Digest>,
    /// The version that was offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The generation that runs now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Why it was refused, why the version in the plugin directory stays out, or that the plugin
    /// was restarted unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long calls waited during the hand-over of its state, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<f64>,
    /// Why the change is in force, but will be lost when the host ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_durable: Option<String>,
    /// Time spent on this plugin in milliseconds.
    pub took_ms: f64,
}

/// A change of a plugin that has ended: a version went live or was refused, or the plugin is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When it ended, RFC 3339.
    pub time: String,
    /// Its cause, in one word for programs.
    pub cause: String,
    /// How it ended.
    pub report: PluginReport,
}

/// Which plugin is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginParams {
    /// Its name.
    pub plugin: PluginName,
}

/// Which version to go back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackParams {
    /// Which plugin.
    pub plugin: PluginName,
    /// The first hexadecimal digits of a stored version's hash; by default the previous
    /// version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Whether it starts fresh instead of taking over the running version's state.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_state: bool,
}

/// Which history to return.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryParams {
    /// One plugin's; all plugins' if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginName>,
}

/// One step in the life of a plugin, or of one of its old versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When, RFC 3339.
    pub time: String,
    /// Which plugin.
    pub plugin: PluginName,
    /// The version that it is about, if it is an old one; otherwise it is about the plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_version: Option<Digest>,
    /// The state before. Of a plugin with a candidate, `STATE/STAGE`.
    pub from: String,
    /// The state since.
    pub to: String,
    /// Why.
    pub reason: String,
}

/// Something in the plugin directory that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Its name there; empty for the plugin directory itself.
    pub package: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A call of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallParams {
    /// Which plugin.
    pub plugin: PluginName,
    /// Which method; the plugin knows its own.
    pub method: String,
    /// The request.
    #[serde(default)]
    pub input_base64: Base64,
    /// How long the caller waits, in milliseconds from the host's receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The trace that the call belongs to, as a W3C `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// The request's media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content_type: String,
    /// The media types that the caller accepts, in the syntax of HTTP's `Accept`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub accept: String,
}

/// A plugin's reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallReply {
    /// The reply.
    pub output_base64: Base64,
    /// Its media type.
    pub content_type: String,
    /// The generation that answered.
    pub generation: u64,
    /// The hash of the plugin that answered.
    pub hash: Digest,
}

/// Bytes that are base64 (RFC 4648, with padding) in JSON.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for Base64 {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(de::Error::custom)
    }
}

/// Trace id, span id and flags of a caller, in W3C's text form of version 00:
/// `00-<32 hex>-<16 hex>-<2 hex>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Trace id, big-endian; never all zero.
    pub trace_id: [u8; 16],
    /// Span id of the caller, big-endian; never all zero.
    pub span_id: [u8; 8],
    /// Trace flags.
    pub flags: u8,
}

/// A text that is not a `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trace must be a W3C traceparent: `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`")]
pub struct TraceParentError;

fn hex<const N: usize>(text: &str) -> Result<[u8; N], TraceParentError> {
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(lower) {
        return Err(TraceParentError);
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16)
            .map_err(|_| TraceParentError)?;
    }
    Ok(bytes)
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        let parts: Vec<_> = text.split('-').collect();
        let ["00", trace, span, flags] = parts[..] else {
            return Err(TraceParentError);
        };
        let (trace_id, span_id, [flags]) = (hex(trace)?, hex(span)?, hex(flags)?);
        if trace_id == [0; 16] || span_id == [0; 8] {
            return Err(TraceParentError);
        }
        Ok(Self {
            trace_id,
            span_id,
            flags,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            u128::from_be_bytes(self.trace_id),
            u64::from_be_bytes(self.span_id),
            self.flags,
        )
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
