//! `cargo xtask` starts even where cargo is configured to build for another machine.

mod common;

use std::{env, process::Command};

#[test]
fn the_driver_is_built_for_the_machine_that_runs_it() {
    let foreign = match env::consts::ARCH {
        "aarch64" => "x86_64-unknown-linux-gnu",
        _ => "aarch64-unknown-linux-gnu",
    };
    let output = Command::new(env::var_os("CARGO").unwrap())
        .args(["xtask", "--version"])
        .current_dir(common::repository())
        .env("CARGO_BUILD_TARGET", foreign)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        output.stdout.starts_with(b"hotmerge-xtask "),
        "{:?}",
        output.stdout
    );
}
