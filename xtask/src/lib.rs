//! The build driver: `cargo xtask` in this repository, `cargo hotmerge` elsewhere.
//!
//! One file per command; each owns its arguments and its `run`. The binaries only pass the
//! name under which the user called them.
//!
//! Absent on purpose: anything of the host. Driver and host share only `hotmerge-meta`,
//! so that either can be replaced without the other.

#![forbid(unsafe_code)]

pub mod bench;
pub mod build_plugins;
mod cargo;
mod cli;
pub mod demo;
mod documents;
pub mod exit;
pub mod new_plugin;
mod output;
mod owner;
mod rustc;
pub mod sign;
mod source;
pub mod test;

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result};
use signal_hook::consts::SIGCHLD;

/// Runs the command line of this process. `name` is what the user typed to get here.
pub fn main(name: &'static str) -> ExitCode {
    // Cargo runs this very program in place of the compiler; see the module.
    if let Some(failed) = rustc::take_over() {
        return failed;
    }
    exit::report(children_can_be_awaited().and_then(|()| cli::run(name)))
}

/// The parent process may have set SIGCHLD to be ignored, and then the system discards the exit
/// status of children. Any handler prevents that; children start with the default action.
fn children_can_be_awaited() -> Result<()> {
    signal_hook::flag::register(SIGCHLD, Arc::default()).context("failed to handle SIGCHLD")?;
    Ok(())
}
