//! What people read of the program without a host: the help of every command, and the sentence
//! that each kind of failure gets. Held as files in `snapshots`.

#[path = "../../../tests/harness/help.rs"]
mod help;

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs the program in `dir` with nothing of the environment that its output depends on.
fn hotmerge(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hotmerge"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
}

fn help(arguments: &[&str]) -> String {
    let shown = hotmerge(Path::new("/"), arguments);
    assert!(shown.status.success(), "{shown:?}");
    String::from_utf8(shown.stdout).expect("it is text")
}

#[test]
fn every_command_has_its_help() {
    let main = help(&["--help"]);
    for name in help::commands_of(&main) {
        insta::assert_snapshot!(format!("help_{name}"), help(&[name, "--help"]));
    }
    insta::assert_snapshot!("help", main);
}

#[test]
fn each_failure_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("text"), "text").unwrap();
    fs::create_dir(path("empty")).unwrap();
    let largest = format!("call_ms = {}\n", u64::MAX);
    fs::write(path("most.toml"), largest).unwrap();
    fs::write(path("wrong.toml"), "drain_ms = \"long\"\n").unwrap();
    fs::write(path("unknown.toml"), "drain = 1\n").unwrap();
    fs::write(path("huge.toml"), format!("drain_ms = {}\n", i64::MAX)).unwrap();
    fs::write(
        path("long.toml"),
        "[restart]\nwithin_s = 9000000000000000\n",
    )
    .unwrap();
    fs::write(
        path("much.toml"),
        "[plugin.a.limits]\nmemory_mib = 9000000000000000\n",
    )
    .unwrap();
    let mut shown = String::new();
    for line in [
        "",
        "dance",
        "status --dance",
        "status --runtime-dir empty",
        "call actor echo --runtime-dir empty",
        "call actor echo --runtime-dir empty --json",
        "call actor echo --runtime-dir empty --input missing",
        "call No/Name echo",
        "call actor echo --timeout long",
        "call actor echo --timeout 18446744073709551616",
        "call actor echo --trace nonsense",
        "logs --since 99999999999999999h",
        "logs --since yesterday",
        "hash missing",
        "hash text",
        "inspect missing",
        "inspect text",
        "inspect text --allow everything",
        "inspect text --config missing",
        "verify missing",
        "verify empty",
        "policy syscalls --config missing",
        "policy nonsense",
        "completions nonsense",
        "man missing",
        "serve",
        "serve --plugin-dir missing",
        "serve --config missing",
        "serve --config wrong.toml",
        "serve --config unknown.toml",
        "serve --config huge.toml",
        "serve --config most.toml",
        "serve --config long.toml",
        "serve --config much.toml",
        "serve --plugin-dir empty --runtime-dir text",
        "serve --plugin-dir empty --runtime-dir empty --log =",
    ] {
        let arguments: Vec<_> = line.split_whitespace().collect();
        let ended = hotmerge(dir.path(), &arguments);
        let code = ended.status.code().expect("no signal ended it");
        writeln!(shown, "$ hotmerge {line}").unwrap();
        shown += &String::from_utf8_lossy(&ended.stdout);
        shown += &String::from_utf8_lossy(&ended.stderr);
        writeln!(shown, "[exit code {code}]\n").unwrap();
    }
    let shown = shown.replace(&dir.path().display().to_string(), "[DIR]");
    insta::assert_snapshot!("failures", shown);
}
