//! Plugins by the linkers that authors use, each with the flags that go with it: they are built,
//! judged, loaded and answer.
//!
//! Absent on purpose: `wild`, which no distribution of the tests has and whose crate takes minutes to
//! build. By hand, `wild` 0.10.0 with `-z now` made a plugin that the policy allows and that answers.

use std::process::Command;

use hotmerge_tests::{Lab, Workspace, skipped};

/// A linker, the program that is it, and flags that were tried and held.
const LINKERS: [(&str, &str, &[&str]); 5] = [
    // The compiler's own choice.
    (
        "",
        "cc",
        &[
            "-z,now",
            "-z,pack-relative-relocs",
            "--hash-style=sysv",
            "-z,noseparate-code",
        ],
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
            "-z,separate-loadable-segments",
            "--pack-dyn-relocs=none",
        ],
    ),
    (
        "mold",
        "mold",
        &[
            "-z,now",
            "--icf=all",
            "--hash-style=sysv",
            "-z,noseparate-code",
            "-z,separate-loadable-segments",
            "--pack-dyn-relocs=none",
        ],
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

/// Some linkers know the mark that glibc demands with them, and lld 14 and mold 1.10 do not.
#[test]
fn packed_relocations_load_only_with_their_mark() {
    let lab = Lab::new();
    let workspace = Workspace::new("packed-relocations", ["marked"]);
    let host = lab.start_with("symbols = \"enforce\"");
    for (linker, program, flag) in [
        ("lld", "ld.lld", "--pack-dyn-relocs=relr"),
        ("lld", "ld.lld", "-z,pack-relative-relocs"),
        ("mold", "mold", "--pack-dyn-relocs=relr"),
        ("mold", "mold", "-z,pack-relative-relocs"),
    ] {
        if !is_there(program) {
            skipped(&format!("there is no linker `{program}`"));
            continue;
        }
        let ran = workspace
            .driver(&lab)
            .arguments(["--notify", "require", "--profile", "dev"])
            .env("RUSTFLAGS", flags(linker, flag))
            .run();
        match host.plugin("marked").refused {
            None => {
                assert_eq!(ran.code, Some(0), "{linker} {flag}: {}", ran.stderr);
                assert_eq!(host.text("marked", "answer"), "marked one");
            }
            Some(refused) => {
                assert_eq!(ran.code, Some(5), "{linker} {flag}: {}", ran.stderr);
                for words in ["symbol policy", "`DT_RELR`", "GLIBC_ABI_DT_RELR"] {
                    assert!(
                        refused.reason.contains(words),
                        "{linker} {flag}: {refused:?}"
                    );
                }
            }
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
