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

use super::HostArguments;
use crate::{exit::Failure, output};

/// Call a method of a plugin and write its reply to standard output.
#[derive(Args, Debug)]
pub(super) struct Call {
    /// Name of the plugin
    plugin: PluginName,
    /// Name of the method
    method: String,
    /// Where the request's bytes come from; `-` is standard input [default: an empty request]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    #[command(flatten)]
    host: HostArguments,
    /// How long to wait for the reply, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Trace that the call belongs to (W3C traceparent)
    #[arg(long, value_name = "TRACEPARENT")]
    trace: Option<TraceParent>,
    /// Print one JSON object with the reply as base64, its content type and who answered
    #[arg(long)]
    json: bool,
}

impl Call {
    pub(super) fn run(self) -> Result<(), Failure> {
        let timeout = Duration::from_secs(self.timeout);
        let params = CallParams {
            plugin: self.plugin.clone(),
            method: self.method.clone(),
            input_base64: self.request()?.into(),
            deadline_ms: u64::try_from(timeout.as_millis()).ok(),
            trace: self.trace,
        };
        let reply: CallReply = self.host.ask(method::CALL, &params, timeout)?;
        if self.json {
            return Ok(output::print_json(&reply)?);
        }
        Ok(output::write(&reply.output_base64.0)?)
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
