//! Manual pages and shell completions of `cargo hotmerge`, for packagers.
//!
//! Invariant: both are made from the command line itself, under the name of the installed program.
//! Absent on purpose: text of their own.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::Shell;

use crate::{exit, output};

/// The installed program. Cargo finds it and its manual page by this name.
const PROGRAM: &str = "cargo-hotmerge";

/// Write the manual pages into a directory.
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Existing directory
    dir: PathBuf,
}

/// Print completions for a shell.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// Shell
    shell: Shell,
}

pub(crate) fn man(command: Command, args: &Man) -> Result<u8> {
    clap_mangen::generate_to(command.name(PROGRAM), &args.dir)
        .with_context(|| format!("failed to write manual pages into `{}`", args.dir.display()))?;
    Ok(exit::OK)
}

pub(crate) fn completions(command: Command, args: &Completions) -> Result<u8> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command.name(PROGRAM), PROGRAM, &mut text);
    output::bytes(&text);
    Ok(exit::OK)
}
