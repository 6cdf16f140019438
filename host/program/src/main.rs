//! The program `hotmerge`: what people and scripts do with a host.

#![forbid(unsafe_code)]

use clap::Parser as _;

mod commands;
mod exit;
mod table;

fn main() -> std::process::ExitCode {
    let arguments = commands::Arguments::parse();
    match commands::run(arguments) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            anstream::eprintln!("hotmerge: {failure}");
            failure.into()
        }
    }
}
