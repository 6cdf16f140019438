//! What people read of the driver: the help of every command, what each prints when it is done, and the
//! sentence for each kind of failure. Held as files in `snapshots`.

#[path = "../../tests/harness/help.rs"]
mod help;

use std::{
    env,
    fmt::Write as _,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
const CARGO_HOTMERGE: &str = env!("CARGO_BIN_EXE_cargo-hotmerge");

/// Runs a program in `dir` without the variables that its output depends on.
fn driver(program: &str, dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    for variable in [
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "CLICOLOR_FORCE",
        "HOTMERGE_RUNTIME_DIR",
        "HOTMERGE_SIGN_KEY",
        "HOTMERGE_SIGN_PASSWORD_FILE",
    ] {
        command.env_remove(variable);
    }
    command
        .args(arguments)
        .current_dir(dir)
        .env("CARGO_TERM_COLOR", "never")
        .env("CARGO_NET_OFFLINE", "true")
        .stdin(Stdio::null());
    command
}

fn help(program: &str, arguments: &[&str]) -> String {
    let shown = driver(program, Path::new("/"), arguments).output();
    let shown = shown.expect("the program runs");
    assert!(shown.status.success(), "{shown:?}");
    String::from_utf8(shown.stdout).expect("it is text")
}

#[test]
fn every_driver_command_has_its_help() {
    let main = help(XTASK, &["--help"]);
    for name in help::commands_of(&main) {
        let text = help(XTASK, &[name, "--help"]);
        let installed = help(CARGO_HOTMERGE, &["hotmerge", name, "--help"]);
        assert_eq!(installed, text.replace("cargo xtask", "cargo hotmerge"));
        insta::assert_snapshot!(format!("help_{name}"), text);
    }
    let installed = help(CARGO_HOTMERGE, &["hotmerge", "--help"]);
    assert_eq!(installed, main.replace("cargo xtask", "cargo hotmerge"));
    insta::assert_snapshot!("help", main);
}

/// Runs each line in turn, and returns what a terminal would show.
fn session(dir: &Path, lines: &[&str]) -> String {
    let mut shown = String::new();
    for line in lines {
        let arguments: Vec<_> = line.split_whitespace().collect();
        let mut command = driver(CARGO_HOTMERGE, dir, &arguments);
        command.env("HOTMERGE_RUNTIME_DIR", dir.join("runtime"));
        let ended = command.output().expect("the program runs");
        let code = ended.status.code().expect("no signal ended it");
        writeln!(shown, "$ cargo hotmerge {line}").unwrap();
        shown += &String::from_utf8_lossy(&ended.stdout);
        shown += &String::from_utf8_lossy(&ended.stderr);
        writeln!(shown, "[exit code {code}]\n").unwrap();
    }
    // Which cargo runs, and what it prints while it builds, is its own affair.
    let cargo = env::var("CARGO").expect("cargo runs tests");
    let shown = shown.replace(&dir.display().to_string(), "[DIR]");
    let shown = shown.replace(&cargo, "[CARGO]");
    let is_cargos =
        |line: &&str| line.starts_with("   Compiling ") || line.starts_with("    Finished ");
    let lines = shown.lines().filter(|line| !is_cargos(line));
    lines.map(|line| format!("{line}\n")).collect()
}

/// A crate that builds without any other.
fn write_crate(dir: &Path, name: &str, more: &str, source: &str) {
    fs::create_dir_all(dir.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n{more}\n\
         [workspace]\n"
    );
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("src/lib.rs"), source).unwrap();
}

const META: &str = "format = 1\n\n[[plugin]]\nname = \"one\"\nversion = \"1.0.0\"\nfile = \"libone.so\"\n\
    hash = \"sha256:e07fba8dcfa49144320d03cb469b51a80367a99eee2175597957248b2dd7f299\"\nsize = 4096\n\
    abi = \"1.2\"\ntarget = \"x86_64-unknown-linux-gnu\"\n";

#[test]
fn signing_says_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("staging/one")).unwrap();
    fs::create_dir_all(path("empty")).unwrap();
    fs::create_dir_all(path("broken")).unwrap();
    fs::write(path("broken/plugin.meta"), "format = 1\n").unwrap();
    fs::write(path("staging/one/plugin.meta"), META).unwrap();
    fs::write(path("text"), "text\n").unwrap();
    // Whatever the tester's umask is.
    fs::set_permissions(path("text"), Permissions::from_mode(0o644)).unwrap();
    fs::write(path("password"), "\n").unwrap();
    let shown = session(
        dir.path(),
        &[
            "sign",
            "sign --new-key release.key --no-password",
            "sign --new-key release.key --no-password",
            "sign --new-key other.key --password-file password",
            "sign staging",
            "sign staging --key missing",
            "sign staging --key text",
            "sign empty --key release.key",
            "sign broken --key release.key",
            "sign staging --key release.key",
            "sign staging/one --key release.key",
        ],
    );
    let public = fs::read_to_string(path("release.key.pub")).unwrap();
    let comment = public.lines().next().unwrap();
    let id = comment.split(' ').next_back().unwrap();
    insta::assert_snapshot!(shown.replace(id, "[KEY]"));
}

#[test]
fn a_new_plugin_says_what_comes_next() {
    let dir = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(session(
        dir.path(),
        &[
            "new-plugin",
            "new-plugin Bad",
            "new-plugin greeter",
            "new-plugin greeter --sdk nonsense",
            "new-plugin greeter --sdk ^1",
            "new-plugin greeter --sdk ^1",
        ],
    ));
}

#[test]
fn building_plugins_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    write_crate(&path("library"), "library", "", "");
    let marked = "[package.metadata.hotmerge]\nname = \"one\"\n[lib]\ncrate-type = [\"cdylib\"]\n";
    write_crate(&path("plugin"), "one", marked, "pub fn nothing() {}\n");
    let unknown =
        "[package.metadata.hotmerge]\ncolour = \"red\"\n[lib]\ncrate-type = [\"cdylib\"]\n";
    write_crate(&path("unknown"), "one", unknown, "");
    let shown = session(
        dir.path(),
        &[
            "build-plugins",
            "build-plugins --notify sometimes",
            "build-plugins --manifest-path library/Cargo.toml",
            "build-plugins --manifest-path unknown/Cargo.toml",
            "build-plugins --manifest-path plugin/Cargo.toml -p two",
            "build-plugins --manifest-path plugin/Cargo.toml",
        ],
    );
    insta::assert_snapshot!(shown);
}
