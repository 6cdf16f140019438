//! `cargo xtask` starts even where cargo is configured to build for another machine.

mod common;

use std::{env, process::Command};

#[test]
fn the_driver_builds_for_its_own_machine() {
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
