//! Every command of the driver with output that nobody reads, or that a full disk takes.

mod common;

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
};

use common::{Scratch, closed_pipe, commands_of, failure, full_disk};

/// A name for what each run makes, since nothing is made twice.
const NEW: &str = "NEW";

/// Arguments, and whether the command writes to standard output.
type Tried = (&'static [&'static str], bool);

/// What each command is tried with. `None` stands for the help alone: these run for minutes, and write
/// in the same way.
const COMMANDS: [(&str, Option<Tried>); 9] = [
    (
        "build-plugins",
        Some((&["--offline", "--notify=never", "--profile=dev"], true)),
    ),
    ("new-plugin", Some((&[NEW], true))),
    ("sign", Some((&["--new-key", NEW, "--no-password"], true))),
    ("man", Some((&["."], false))),
    ("completions", Some((&["bash"], true))),
    ("capi", None),
    ("demo", None),
    ("test", None),
    ("bench", None),
];

fn code(driver: &mut Command, stdout: Stdio) -> Option<i32> {
    let driver = driver.stdin(Stdio::null()).stdout(stdout);
    driver.stderr(Stdio::null()).status().unwrap().code()
}

#[test]
fn every_command_is_listed() {
    let scratch = Scratch::new();
    let help = scratch.driver().arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let tried: BTreeSet<_> = COMMANDS.iter().map(|(command, _)| *command).collect();
    let listed: BTreeSet<_> = commands_of(&help).into_iter().collect();
    assert_eq!(listed, tried);
}

#[test]
fn every_help_survives_a_lost_output() {
    let scratch = Scratch::new();
    let helps = COMMANDS.iter().map(|(command, _)| [*command, "--help"]);
    let both = [["--help", "--help"], ["--version", "--version"]];
    for arguments in helps.chain(both) {
        for (stdout, expected) in [(full_disk(), 1), (closed_pipe(), 0)] {
            let ended = code(scratch.driver().args(arguments), stdout);
            assert_eq!(ended, Some(expected), "{arguments:?}");
        }
    }
}

#[test]
fn every_command_survives_a_lost_output() {
    let scratch = Scratch::new();
    scratch.plugin("one", "", "let _ = call; reply.text(\"hello\")");
    scratch.edit(
        "plugins/Cargo.toml",
        "[\"crates/*\"]\n",
        "[\"crates/one\"]\n[workspace.dependencies]\n\
         hotmerge-sdk = { path = \"../hotmerge/plugins/sdk\" }\n",
    );
    for (command, tried) in COMMANDS {
        let Some((arguments, writes)) = tried else {
            continue;
        };
        for (new, stdout, expected) in [
            ("full", full_disk(), i32::from(writes)),
            ("closed", closed_pipe(), 0),
        ] {
            let named = format!("{command}-{new}");
            let words = arguments.iter().map(|word| word.replace(NEW, &named));
            let ended = code(scratch.driver().arg(command).args(words), stdout);
            assert_eq!(ended, Some(expected), "{command}");
            // What it makes, it has made.
            if arguments.contains(&NEW) {
                assert!(scratch.path("plugins").join(&named).exists(), "{named}");
            }
        }
    }
    assert!(scratch.path("plugins/cargo-hotmerge.1").exists());
    assert!(scratch.staged("one/libone.so").exists());
    let (ended, said) = failure(&mut signing(&scratch));
    assert_eq!(ended, 0, "{said}");
    for (stdout, expected) in [(full_disk(), 1), (closed_pipe(), 0)] {
        let signature = scratch.staged("one/plugin.meta.minisig");
        fs::remove_file(&signature).unwrap();
        assert_eq!(code(&mut signing(&scratch), stdout), Some(expected));
        assert!(signature.exists());
    }
}

/// `sign` with a key that an earlier command made.
fn signing(scratch: &Scratch) -> Command {
    let mut driver = scratch.driver();
    driver.args(["sign", "--key", "sign-full", "target/hotmerge/staging"]);
    driver
}

#[test]
fn a_file_size_limit_is_a_sentence() {
    let scratch = Scratch::new();
    let large = "File too large";
    for (arguments, redirected, words) in [
        (&["completions", "bash"][..], "> out", large),
        (&["sign", "--new-key", "key", "--no-password"], "", large),
        (&["man", "."], "", large),
        // Cargo is killed, as by itself.
        (
            &["new-plugin", "big"],
            "",
            "was killed (signal: 25 (SIGXFSZ)",
        ),
    ] {
        let driver = scratch.driver();
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit -f 0 && exec \"$@\" {redirected}")]);
        limited.arg("sh").arg(driver.get_program());
        limited.args(driver.get_args()).args(arguments);
        limited.current_dir(scratch.path("plugins"));
        let (code, said) = failure(&mut limited);
        assert_eq!(code, 1, "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    assert!(!scratch.path("plugins/big").exists());
}
