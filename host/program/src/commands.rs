//! The command line: one module a command.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use hotmerge_daemon::Config;
use hotmerge_meta::{
    RuntimeDir,
    control::{Client, ClientError, ConnectError, code},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::exit::{self, Failure};

mod call;
mod completions;
mod hash;
mod history;
mod inspect;
mod man;
mod pin;
mod policy;
mod reload;
mod rollback;
mod serve;
mod status;
mod stop;
mod verify;

/// Run plugins and take new versions of them while the program runs.
#[derive(Debug, Parser)]
#[command(name = "hotmerge", version, after_help = exit::HELP, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Status(status::Status),
    Reload(reload::Reload),
    Call(call::Call),
    History(history::History),
    Rollback(rollback::Rollback),
    Pin(pin::Pin),
    Unpin(pin::Unpin),
    Stop(stop::Stop),
    Hash(hash::Hash),
    Inspect(inspect::Inspect),
    Policy(policy::Policy),
    Verify(verify::Verify),
    Completions(completions::Completions),
    Man(man::Man),
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Serve(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Reload(command) => command.run(),
        Command::Call(command) => command.run(),
        Command::History(command) => command.run(),
        Command::Rollback(command) => command.run(),
        Command::Pin(command) => command.run(),
        Command::Unpin(command) => command.run(),
        Command::Stop(command) => command.run(),
        Command::Hash(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Policy(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    }
}

/// Which host is meant.
#[derive(Args, Debug)]
struct HostArguments {
    /// Where the host's control socket and pid file are [default: /run/hotmerge for root,
    /// otherwise hotmerge in $XDG_RUNTIME_DIR, otherwise /tmp/hotmerge-UID]
    #[arg(long, value_name = "DIR", env = RuntimeDir::VARIABLE)]
    runtime_dir: Option<PathBuf>,
}

impl HostArguments {
    fn dir(&self) -> RuntimeDir {
        RuntimeDir::chosen(self.runtime_dir.as_ref())
    }

    /// Asks the host and waits up to `timeout` for its answer.
    fn ask<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
        timeout: Duration,
    ) -> Result<R, Failure> {
        let mut client = Client::connect(&self.dir()).map_err(|error| {
            let code = match error {
                ConnectError::NotRunning { .. } => exit::NO_HOST,
                ConnectError::Denied { .. } | ConnectError::Stranger { .. } => exit::DENIED,
                _ => exit::FAILURE,
            };
            Failure::new(code, error)
        })?;
        client.request(method, params, timeout).map_err(|error| {
            let code = match &error {
                ClientError::Refused(refused) => match refused.code() {
                    code::DENIED => exit::DENIED,
                    code::NO_PLUGIN..=code::REPLY_TOO_LARGE => exit::CALL_FAILED,
                    _ => exit::FAILURE,
                },
                _ => exit::FAILURE,
            };
            Failure::new(code, error)
        })
    }
}

/// A host that is to change what it runs, and how to tell what came of it.
#[derive(Args, Debug)]
struct Change {
    #[command(flatten)]
    host: HostArguments,
    /// How long to wait for the host, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Change {
    fn ask<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
    ) -> Result<R, Failure> {
        let timeout = Duration::from_secs(self.timeout);
        self.host.ask(method, params, timeout)
    }
}

/// The configuration that a file has, or everything by default.
fn configuration(path: Option<&Path>) -> Result<Config, Failure> {
    path.map_or_else(|| Ok(Config::default()), Config::read)
        .map_err(|error| Failure::new(exit::CONFIG, error))
}

/// Prints one JSON object on a line of its own.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}
