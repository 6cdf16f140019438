//! `hotmerge call`: one call of a plugin.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{CallParams, CallReply, TraceParent, method},
};
use serde_json::json;

use super::host::HostArguments;
use crate::{exit::Failure, output};

/// Call a plugin's method and write the reply to standard output.
///
/// Request and reply travel as base64 in one frame each. A frame holds at most 16 MiB, so
/// either can be up to almost 12 MiB.
#[derive(Args, Debug)]
pub(super) struct Call {
    /// Plugin name
    plugin: PluginName,
    /// Method name
    method: String,
    /// File that holds the request; `-` is standard input [default: an empty request]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Media type of the request
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    content_type: String,
    /// Media types accepted for the reply, as in HTTP: `application/json, text/*;q=0.5`
    #[arg(
        long,
        value_name = "TYPES",
        default_value = "",
        hide_default_value = true
    )]
    accept: String,
    #[command(flatten)]
    host: HostArguments,
    /// Seconds to wait for the reply
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Trace that the call belongs to (W3C traceparent)
    #[arg(long, value_name = "TRACEPARENT")]
    trace: Option<TraceParent>,
    /// Print one JSON object: the reply in base64 and who answered, or `error` with `exit_code`
    /// and `message`
    #[arg(long)]
    json: bool,
}

impl Call {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.ask() {
            Ok(reply) if self.json => Ok(output::print_json(&reply)?),
            Ok(reply) => Ok(output::write(&reply.output_base64.0)?),
            Err(failure) => {
                if self.json {
                    let (code, message) = (failure.code(), failure.to_string());
                    let error = json!({ "exit_code": code, "message": message });
                    output::print_json(&json!({ "error": error }))?;
                }
                Err(failure)
            }
        }
    }

    fn ask(&self) -> Result<CallReply, Failure> {
        let timeout = Duration::from_secs(self.timeout);
        let params = CallParams {
            plugin: self.plugin.clone(),
            method: self.method.clone(),
            input_base64: self.request()?.into(),
            deadline_ms: u64::try_from(timeout.as_millis()).ok(),
            trace: self.trace,
            content_type: self.content_type.clone(),
            accept: self.accept.clone(),
        };
        self.host.ask(method::CALL, &params, timeout)
    }

    fn request(&self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match &self.input {
            None => {}
            Some(path) if path.as_os_str() == "-" => {
                io::stdin()
                    .lock()
                    .read_to_end(&mut bytes)
                    .context("failed to read the request from standard input")?;
            }
            Some(path) => {
                bytes = fs::read(path)
                    .with_context(|| format!("failed to read the request `{}`", path.display()))?;
            }
        }
        Ok(bytes)
    }
}
