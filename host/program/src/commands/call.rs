//! `hotmerge call`: one call of a plugin.

use std::time::Duration;

use clap::{Args, Command};
use hotmerge_meta::{
    PluginName,
    control::{CallParams, CallReply, TraceParent, method},
};
use serde_json::json;

use super::{complete, host::HostArguments, request::Request};
use crate::{exit::CommandError, output};

/// Call a plugin's method and write the reply to standard output.
///
/// Request and reply travel as base64 in one frame each. A frame holds at most 16 MiB, so
/// either can be up to almost 12 MiB.
#[derive(Args, Debug)]
pub(super) struct Call {
    /// Plugin name
    #[arg(add = complete::plugins())]
    plugin: PluginName,
    /// Method name
    #[arg(add = complete::methods(command))]
    method: String,
    #[command(flatten)]
    request: Request,
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

/// This command alone.
fn command() -> Command {
    Call::augment_args(Command::new("call"))
}

impl Call {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self.ask() {
            Ok(reply) if self.json => Ok(output::print_json(&reply)?),
            Ok(reply) => {
                output::write(&reply.output_base64.0);
                Ok(())
            }
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

    fn ask(&self) -> Result<CallReply, CommandError> {
        let timeout = Duration::from_secs(self.timeout);
        let params = CallParams {
            plugin: self.plugin.clone(),
            method: self.method.clone(),
            input_base64: self.request.read()?.into(),
            deadline_ms: u64::try_from(timeout.as_millis()).ok(),
            trace: self.trace,
            content_type: self.request.content_type.clone(),
            accept: self.request.accept.clone(),
        };
        self.host.ask(method::CALL, &params, timeout)
    }
}
