//! `hotmerge debug`: everything that the host knows of one plugin.

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

/// Show everything that the host knows of one plugin, for debugging.
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
            let mut lines = String::new();
            list("", &serde_json::to_value(&report)?, &mut lines);
            output::print(lines);
        }
        Ok(())
    }
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
