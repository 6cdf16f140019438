//! The command line: one module a command.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, builder::Resettable,
};
use hotmerge_daemon::Config;
use hotmerge_meta::{
    RuntimeDir,
    control::{Client, ClientError, ConnectError, code},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::exit::{self, Failure};

mod call;
mod completions;
mod debug;
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

/// Host for packaged plugins: hot-reloads what changed, without a restart.
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
    Debug(debug::Debug),
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

/// Reads the command line and the environment. A variable that is empty counts as unset.
pub(crate) fn parse() -> Result<Arguments, clap::Error> {
    let matches = without_empty_variables(Arguments::command()).try_get_matches()?;
    Arguments::from_arg_matches(&matches)
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|argument| match argument.get_env() {
            Some(name) if is_empty(name) => argument.env(Resettable::Reset),
            _ => argument,
        })
        .mut_subcommands(without_empty_variables)
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Serve(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Reload(command) => command.run(),
        Command::Call(command) => command.run(),
        Command::History(command) => command.run(),
        Command::Debug(command) => command.run(),
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
    /// Directory of the host's control socket and pid file [default: /run/hotmerge for root,
    /// otherwise $XDG_RUNTIME_DIR/hotmerge, otherwise /tmp/hotmerge-UID]
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
                ClientError::Refused(refused) => refusal(refused.code()),
                ClientError::TimedOut(_) => exit::DEADLINE,
                ClientError::TooLong(_) => exit::TOO_LARGE,
                _ => exit::FAILURE,
            };
            Failure::new(code, error)
        })
    }
}

/// The exit code for what a host refuses.
fn refusal(code: i32) -> u8 {
    match code {
        code::DENIED => exit::DENIED,
        code::NO_PLUGIN => exit::NO_PLUGIN,
        code::NO_PLUGIN_METHOD => exit::NO_METHOD,
        code::PLUGIN_FAILED | code::BAD_REQUEST => exit::CALL_FAILED,
        code::DEADLINE => exit::DEADLINE,
        code::PANICKED => exit::PANICKED,
        code::REPLY_TOO_LARGE => exit::TOO_LARGE,
        _ => exit::FAILURE,
    }
}

/// A host that is to change what it runs, and how to tell what came of it.
#[derive(Args, Debug)]
struct Change {
    #[command(flatten)]
    host: HostArguments,
    /// Seconds to wait for the host
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
