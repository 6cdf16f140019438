//! The build driver: `cargo xtask` in this repository, `cargo hotmerge` elsewhere.
//!
//! One file a command; each owns its arguments and its `run`. The binaries only say by
//! which name they were called.
//!
//! Absent on purpose: anything of the host. Driver and host meet in `hotmerge-meta` alone,
//! so that either can be replaced without the other.

#![forbid(unsafe_code)]

pub mod bench;
pub mod build_plugins;
mod cargo;
mod cli;
pub mod demo;
pub mod exit;
pub mod new_plugin;
mod output;
mod owner;
mod rustc;
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

/// Whoever starts this may have SIGCHLD ignored, and then the system forgets how children end.
/// A handler, be it one that does nothing, ends that; children start with the default.
fn children_can_be_awaited() -> Result<()> {
    signal_hook::flag::register(SIGCHLD, Arc::default()).context("failed to handle SIGCHLD")?;
    Ok(())
}
