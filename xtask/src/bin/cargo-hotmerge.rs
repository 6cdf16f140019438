//! `cargo hotmerge`: the same driver, installed, for plugins that live elsewhere.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    hotmerge_xtask::main("cargo hotmerge")
}
