//! The command line: one module per command.

use std::{env, ffi::OsStr};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, builder::Resettable};

use crate::exit::{self, CommandError};

mod call;
mod complete;
mod completions;
mod debug;
mod describe;
mod front;
mod hash;
mod history;
mod host;
mod inspect;
mod logs;
mod man;
mod pin;
mod policy;
mod reload;
mod request;
mod rollback;
mod routes;
mod run;
mod serve;
mod status;
mod stop;
#[cfg(feature = "top")]
mod top;
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
    #[cfg(feature = "top")]
    Top(top::Top),
    Reload(reload::Reload),
    Call(call::Call),
    Describe(describe::Describe),
    History(history::History),
    Debug(debug::Debug),
    Logs(logs::Logs),
    Routes(routes::Routes),
    Rollback(rollback::Rollback),
    Pin(pin::Pin),
    Unpin(pin::Unpin),
    Run(run::Run),
    Stop(stop::Stop),
    Hash(hash::Hash),
    Inspect(inspect::Inspect),
    Policy(policy::Policy),
    Verify(verify::Verify),
    Completions(completions::Completions),
    Man(man::Man),
}

/// Answers a shell that completes; returns whether one did.
pub(crate) fn has_completed() -> Result<bool, clap::Error> {
    complete::answered(Arguments::command)
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

pub(crate) fn run(arguments: Arguments) -> Result<(), CommandError> {
    let command = match arguments.command {
        Command::Serve(command) => return command.run(),
        other => other,
    };
    hotmerge_sandbox::reset_signals();
    match command {
        Command::Serve(command) => command.run(),
        Command::Status(command) => command.run(),
        #[cfg(feature = "top")]
        Command::Top(command) => command.run(),
        Command::Reload(command) => command.run(),
        Command::Call(command) => command.run(),
        Command::Describe(command) => command.run(),
        Command::History(command) => command.run(),
        Command::Debug(command) => command.run(),
        Command::Logs(command) => command.run(),
        Command::Routes(command) => command.run(),
        Command::Rollback(command) => command.run(),
        Command::Pin(command) => command.run(),
        Command::Unpin(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Stop(command) => command.run(),
        Command::Hash(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Policy(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(Arguments::command()),
    }
}
