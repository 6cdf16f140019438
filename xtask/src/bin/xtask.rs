//! `cargo xtask`: the driver inside the hotmerge repository.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    hotmerge_xtask::main("cargo xtask")
}
