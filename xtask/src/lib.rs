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
pub mod capi;
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
mod signals;
mod source;
pub mod test;

use std::process::ExitCode;

/// Runs the command line of this process. `name` is what the user typed to get here.
pub fn main(name: &'static str) -> ExitCode {
    // Cargo runs this very program in place of the compiler; see the module.
    if let Some(failed) = rustc::take_over() {
        return failed;
    }
    exit::report(signals::reset().and_then(|()| cli::run(name)))
}
