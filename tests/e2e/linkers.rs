//! Plugins by the linkers that authors use, each with the flags that go with it: they are built,
//! judged, loaded and answer.
//!
//! Absent on purpose: `wild`, which no distribution of the tests has and whose crate takes minutes to
//! build. By hand, `wild` 0.10.0 with `-z now` made a plugin that the policy allows and that answers.

use std::process::Command;

use hotmerge_tests::{Lab, Workspace, skipped};

/// A linker, the program that is it, and flags that were tried and held. lld 14 and mold
/// 1.10 pack relocations without the mark that glibc demands, which then refuses the plugin itself.
const LINKERS: [(&str, &str, &[&str]); 5] = [
    // The compiler's own choice.
    (
        "",
        "cc",
        &["-z,now", "-z,pack-relative-relocs", "--hash-style=sysv"],
    ),
    (
        "bfd",
        "ld.bfd",
        &[
            "-z,now",
            "-z,pack-relative-relocs",
            "--hash-style=sysv",
            "-z,noseparate-code",
            "-z,origin",
        ],
    ),
    (
        "gold",
        "ld.gold",
        &["-z,now", "--icf=all", "--hash-style=sysv"],
    ),
    (
        "lld",
        "ld.lld",
        &[
            "-z,now",
            "--icf=all",
            "--hash-style=sysv",
            "-z,noseparate-code",
        ],
    ),
    (
        "mold",
        "mold",
        &["-z,now", "--icf=all", "--hash-style=sysv"],
    ),
];

fn is_there(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// For the compiler, so that this very linker links.
fn flags(linker: &str, flag: &str) -> String {
    let flag = format!("-Clink-arg=-Wl,{flag}");
    if linker.is_empty() {
        return flag;
    }
    // The compiler may bring a linker of its own.
    let own = if cfg!(target_arch = "x86_64") {
        "-Clinker-features=-lld "
    } else {
        ""
    };
    format!("{own}-Clink-arg=-fuse-ld={linker} {flag}")
}

#[test]
fn plugins_of_every_linker_load_and_answer() {
    let lab = Lab::new();
    let workspace = Workspace::new("linkers", ["linked"]);
    let host = lab.start_with("symbols = \"enforce\"");
    for (linker, program, all) in LINKERS {
        if !is_there(program) {
            skipped(&format!("there is no linker `{program}`"));
            continue;
        }
        for flag in all {
            let ran = workspace
                .driver(&lab)
                .arguments(["--notify", "require", "--profile", "dev"])
                .env("RUSTFLAGS", flags(linker, flag))
                .run();
            assert_eq!(ran.code, Some(0), "{linker} {flag}: {}", ran.stderr);
            let status = host.plugin("linked");
            assert!(status.refused.is_none(), "{linker} {flag}");
            assert_eq!(host.text("linked", "answer"), "linked one");
        }
    }
    host.stop();
}

/// Only Android's loader knows them: glibc's would leave the plugin's tables unrelocated.
#[test]
fn relocations_unknown_to_the_loader_are_refused() {
    if !is_there("ld.lld") {
        return skipped("there is no linker `ld.lld`");
    }
    let lab = Lab::new();
    let workspace = Workspace::new("android-relocations", ["packed"]);
    let host = lab.start_with("symbols = \"enforce\"");
    workspace
        .driver(&lab)
        .arguments(["--notify", "require", "--profile", "dev"])
        .env("RUSTFLAGS", flags("lld", "--pack-dyn-relocs=android"))
        .run()
        .ended_with(5);
    let refused = host.plugin("packed").refused.expect("it is refused");
    assert!(
        refused.reason.contains("packed relocations"),
        "{}",
        refused.reason
    );
    host.stop();
}
