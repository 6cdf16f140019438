//! `hotmerge debug`: all that the host knows of one plugin.

use std::time::Duration;

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{DebugReport, PluginParams, method},
};
use hotmerge_observe::log::plain;
use serde_json::Value;

use super::{HostArguments, print_json};
use crate::exit::Failure;

/// Show all that the host knows of one plugin, to look for a fault.
///
/// What is shown follows the host's inner workings and changes with them; `status` and `history`
/// are for programs.
#[derive(Args, Debug)]
pub(super) struct Debug {
    /// Which plugin
    #[arg(value_name = "PLUGIN")]
    plugin: PluginName,
    #[command(flatten)]
    host: HostArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Debug {
    pub(super) fn run(self) -> Result<(), Failure> {
        let params = PluginParams {
            plugin: self.plugin,
        };
        let report: DebugReport = self
            .host
            .ask(method::DEBUG, &params, Duration::from_secs(10))?;
        if self.json {
            return print_json(&report);
        }
        print("", &serde_json::to_value(&report)?);
        Ok(())
    }
}

/// One line per field, those of an inner object behind its name: `live.version: 1.0.0`.
fn print(name: &str, value: &Value) {
    let inner = |key: &str| match name {
        "" => key.to_owned(),
        _ => format!("{name}.{key}"),
    };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                print(&inner(key), value);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, value) in items.iter().enumerate() {
                print(&inner(&index.to_string()), value);
            }
        }
        Value::Array(_) | Value::Null => anstream::println!("{name}: none"),
        Value::String(text) => anstream::println!("{name}: {}", plain(text)),
        Value::Bool(is_so) => anstream::println!("{name}: {}", if *is_so { "yes" } else { "no" }),
        Value::Number(number) => anstream::println!("{name}: {number}"),
    }
}
