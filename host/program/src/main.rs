//! The program `hotmerge`: what people and scripts do with a host.

#![forbid(unsafe_code)]
// Whatever prints by itself panics when its output cannot be written: see `output`.
#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_macros,
    clippy::disallowed_methods
)]

use std::process::ExitCode;

use clap::error::ErrorKind;
use exit::CommandError;

mod commands;
mod exit;
mod log_sinks;
mod manager;
mod output;
mod place;
mod plan;
mod reloads;
mod signals;
mod table;

fn main() -> ExitCode {
    // A host must not be killed before it has said what it does about signals; all other commands
    // let them in at once.
    hotmerge_sandbox::hold_signals();
    let _ = output::outlive_size_limit();
    let done = match commands::has_completed() {
        Ok(true) => {
            // The last line of an answer may still be buffered.
            output::print("");
            Ok(())
        }
        Ok(false) => match commands::parse() {
            Ok(arguments) => commands::run(arguments),
            Err(instead) => show(&instead),
        },
        Err(instead) => show(&instead),
    };
    let worked = done.map_err(complain);
    let written = match output::lost() {
        Some(lost) => Err(complain(CommandError::from(lost))),
        None => Ok(()),
    };
    worked.and(written).err().unwrap_or(ExitCode::SUCCESS)
}

fn complain(failure: CommandError) -> ExitCode {
    output::complain(failure.report());
    failure.into()
}

/// Shows the help or the version that was asked for, or fails for wrong usage.
fn show(instead: &clap::Error) -> Result<(), CommandError> {
    let text = instead.render().ansi().to_string();
    match instead.kind() {
        // clap keeps the text of a failed write and not its error; but what stopped a shell's completions
        // stops a further byte as well. Otherwise the shell is unknown.
        ErrorKind::Io if !output::print_to_reader("\n") => Ok(()),
        ErrorKind::Io => Err(CommandError::usage(text)),
        _ if instead.use_stderr() => Err(CommandError::usage(text)),
        _ => {
            output::print(text);
            Ok(())
        }
    }
}
