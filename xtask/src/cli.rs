//! The command line: chooses the command, without its behaviour.

use std::{
    env,
    ffi::{OsStr, OsString},
};

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, builder::Resettable};

use crate::{bench, build_plugins, capi, demo, documents, exit, new_plugin, output, sign, test};

/// Build hotmerge plugins, stage them and notify the running host.
#[derive(Debug, Parser)]
#[command(version, after_help = exit::HELP, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    BuildPlugins(build_plugins::Args),
    NewPlugin(new_plugin::Args),
    Sign(sign::Args),
    Capi(capi::Args),
    Demo(demo::Args),
    Test(test::Args),
    Bench(bench::Args),
    Man(documents::Man),
    Completions(documents::Completions),
}

pub(crate) fn run(name: &'static str) -> Result<u8> {
    let matches = without_empty_variables(Cli::command())
        .bin_name(name)
        .try_get_matches_from(arguments());
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(asked_or_wrong) => {
            output::keep(asked_or_wrong.print());
            return Ok(if asked_or_wrong.use_stderr() {
                exit::USAGE
            } else {
                exit::OK
            });
        }
    };
    match cli.command {
        Command::BuildPlugins(args) => build_plugins::run(&args),
        Command::NewPlugin(args) => new_plugin::run(&args, name),
        Command::Sign(args) => sign::run(&args),
        Command::Capi(args) => capi::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Man(args) => documents::man(Cli::command(), &args),
        Command::Completions(args) => documents::completions(Cli::command(), &args),
    }
}

/// A variable that is empty counts as unset.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|argument| match argument.get_env() {
            Some(name) if is_empty(name) => argument.env(Resettable::Reset),
            _ => argument,
        })
        .mut_subcommands(without_empty_variables)
}

/// Cargo runs `cargo-hotmerge hotmerge …`; a user may run `cargo-hotmerge …`.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<_> = env::args_os().collect();
    if arguments
        .get(1)
        .is_some_and(|argument| argument == "hotmerge")
    {
        arguments.remove(1);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
