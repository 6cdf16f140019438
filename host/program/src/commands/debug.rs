//! `hotmerge debug`: everything that the host knows about one plugin.

use std::time::Duration;

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{DebugReport, PluginParams, method},
    plain,
};
use serde_json::Value;

use super::host::HostArguments;
use crate::{exit::CommandError, output};

/// Show everything that the host knows about one plugin, for debugging.
///
/// The output follows the host's internals and changes with them; programs should read `status` and
/// `history`.
#[derive(Args, Debug)]
pub(super) struct Debug {
    /// Plugin name
    #[arg(value_name = "PLUGIN")]
    plugin: PluginName,
    #[command(flatten)]
    host: HostArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Debug {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let params = PluginParams {
            plugin: self.plugin,
        };
        let report: DebugReport = self
            .host
            .ask(method::DEBUG, &params, Duration::from_secs(10))?;
        if self.json {
            output::print_json(&report)?;
        } else {
            output::print(text(&report)?);
        }
        Ok(())
    }
}

fn text(report: &DebugReport) -> anyhow::Result<String> {
    let mut lines = String::new();
    list("", &serde_json::to_value(report)?, &mut lines);
    Ok(lines)
}

/// One line per field, those of an inner object behind its name: `live.version: 1.0.0`.
fn list(name: &str, value: &Value, lines: &mut String) {
    let inner = |key: &str| match name {
        "" => key.to_owned(),
        _ => format!("{name}.{key}"),
    };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                list(&inner(key), value, lines);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, value) in items.iter().enumerate() {
                list(&inner(&index.to_string()), value, lines);
            }
        }
        Value::Array(_) | Value::Null => line(name, "none", lines),
        Value::String(text) => line(name, &plain(text), lines),
        Value::Bool(is_so) => line(name, if *is_so { "yes" } else { "no" }, lines),
        Value::Number(number) => line(name, &number.to_string(), lines),
    }
}

fn line(name: &str, value: &str, lines: &mut String) {
    *lines += &format!("{name}: {value}\n");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_line_per_field() {
        let hash = "sha256:5f0c3f1b7d4e8a9260b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f50617";
        let attempt = |ticket: u64, progress: &str, ending: Option<&str>| {
            json!({
                "ticket": ticket, "version": "1.0.0", "hash": hash, "progress": progress,
                "ending": ending, "age_ms": 1500, "paused_ms": null, "package": "alpha",
            })
        };
        let report: DebugReport = serde_json::from_value(json!({
            "plugin": "alpha", "state": "active", "stage": null, "reason": "the package changed",
            "since": "2026-11-27T12:00:00Z", "busy": true,
            "directory": {
                "version": "1.0.1", "hash": hash, "origin": "package alpha", "takes_state": true,
            },
            "choice": {"version": "1.0.0", "hash": hash, "pinned": true, "instead_of": null},
            "live": attempt(4, "live", None), "generation": 2, "given_up": false,
            "candidate": null, "why": null, "deferred": null, "differs": null,
            "olds": [attempt(3, "started", Some("draining"))],
            "refused": {
                "version": "1.0.1", "hash": hash, "reason": "it is for\nanother machine",
                "lasting": true,
            },
            "health": {
                "restarts": 1, "retained": 0,
                "last_failure": {
                    "time": "2026-11-27T11:59:00Z", "what": "was killed by SIGSEGV at 0x8",
                    "method": "render", "stack": ["alpha::render", "alpha::call"],
                },
                "replace_in_ms": null, "save_in_ms": 8000,
            },
            "waiting": ["a checkpoint"],
            "worker": {
                "phase": "live",
                "status": {"pid": 4711, "memory_bytes": 1_048_576, "degraded": [], "log_dropped": 0},
            },
        }))
        .expect("it is a report");
        insta::assert_snapshot!(text(&report).expect("it is JSON"));
    }
}
