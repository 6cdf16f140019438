//! Where the output of `hotmerge` goes: to readers that go away, and to disks that are full.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    process::Stdio,
    thread,
};

use hotmerge_tests::{Lab, SOON, TestHost, actor, run};
use serde_json::{Value, json};

/// A lab whose host runs the second version of a plugin, and every command that writes something when
/// all is well.
fn commands() -> (Lab, TestHost, Vec<Vec<String>>) {
    let lab = Lab::new();
    let variant = actor("mark=1");
    lab.package("one").put(&[&variant]);
    let host = lab.start();
    let variant = actor("mark=2");
    lab.package("one").put(&[&variant]);
    host.reload();
    let file = lab.package("one").file_path(&variant).display().to_string();
    let dir = lab.plugin_dir().display().to_string();
    let config = lab.path("hotmerge.toml").display().to_string();
    let commands = [
        "--help",
        "--version",
        "serve --help",
        "man --help",
        "status",
        "status --json",
        "reload",
        "reload actor",
        "reload --json",
        "history",
        "history --json",
        "describe actor",
        "describe actor --json",
        "debug actor",
        "logs",
        "logs --json",
        "rollback actor",
        "pin actor",
        "unpin actor",
        "call actor mark",
        "call actor mark --json",
        "policy syscalls",
        "policy symbols",
        "completions bash",
        "completions zsh",
        "completions fish",
        &format!("inspect {file} --allow net"),
        &format!("inspect --json {file} --allow net"),
        &format!("verify {dir} --config {config}"),
        &format!("verify --json {dir} --config {config}"),
        &format!("hash {file}"),
        &format!("hash --json {file}"),
        &format!("serve --check --plugin-dir {dir}"),
        &format!("run {file} mark --config {config}"),
    ];
    let listed = lab.hotmerge(["--help"]).ok().text();
    let (_, listed) = listed.split_once("Commands:\n").unwrap();
    let (listed, _) = listed.split_once("\n\n").unwrap();
    for line in listed.lines().filter_map(|line| line.strip_prefix("  ")) {
        let name = line.split(' ').next().unwrap();
        let is_tried = |it: &&str| it.split(' ').next() == Some(name);
        // One stops the host and says nothing; the other lines continue a description.
        let is_other = ["", "stop"].contains(&name);
        assert!(is_other || commands.iter().any(is_tried), "{name}");
    }
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    (lab, host, commands.into_iter().map(words).collect())
}

fn full_disk() -> Stdio {
    let full = OpenOptions::new().write(true).open("/dev/full");
    full.expect("`/dev/full` is there").into()
}

/// A pipe that nobody reads any more.
fn closed_pipe() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Ends with this exit code, and says this on standard error.
#[track_caller]
fn ends(lab: &Lab, arguments: &[String], stdout: Stdio, code: i32, stderr: &str) {
    let mut command = lab.command();
    let child = command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn();
    let ended = child.unwrap().wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(
        (ended.status.code(), &*told),
        (Some(code), stderr),
        "{arguments:?}"
    );
}

#[test]
fn a_closed_pipe_ends_every_command_quietly() {
    let (lab, host, commands) = commands();
    for arguments in &commands {
        ends(&lab, arguments, closed_pipe(), 0, "");
    }
    host.stop();
}

#[test]
fn a_full_disk_fails_every_command_with_a_sentence() {
    let (lab, host, commands) = commands();
    let sentence =
        "hotmerge: failed to write to standard output: No space left on device (os error 28)\n";
    for arguments in &commands {
        ends(&lab, arguments, full_disk(), 1, sentence);
    }
    host.stop();
}

#[test]
fn completions_fail_as_other_output_does() {
    let lab = Lab::new();
    for arguments in [&[][..], &["--", "hotmerge", "sta"]] {
        for (stdout, code) in [(closed_pipe(), 0), (full_disk(), 1)] {
            let mut command = lab.command();
            command.args(arguments).env("HOTMERGE_COMPLETE", "fish");
            let ended = command.stdout(stdout).output().unwrap();
            let told = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(code), "{told}");
            assert_eq!(
                told.contains("No space left on device"),
                code == 1,
                "{told}"
            );
        }
    }
}

#[test]
fn the_exit_code_survives_a_lost_output() {
    let (lab, host, _) = commands();
    let other = actor("mark=2");
    lab.package("bad")
        .put(&[&other.with_meta(|meta| meta.size += 1)]);
    let verify = ["verify".to_owned(), lab.plugin_dir().display().to_string()];
    let sentence = "hotmerge: 2 packages failed verification\n";
    ends(&lab, &verify, closed_pipe(), 5, sentence);
    for (stderr, code, arguments) in [
        (full_disk(), 2, "--nonsense"),
        (closed_pipe(), 2, "--nonsense"),
        (full_disk(), 1, "hash /does/not/exist"),
        (closed_pipe(), 1, "hash /does/not/exist"),
    ] {
        let mut command = lab.command();
        command.args(arguments.split(' ')).stderr(stderr);
        let ended = command.stdout(Stdio::null()).status().unwrap();
        assert_eq!(ended.code(), Some(code), "{arguments}");
    }
    host.stop();
}

#[test]
fn a_host_outlives_a_log_that_cannot_be_written() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    for stderr in [full_disk(), closed_pipe()] {
        let mut serve = lab.serve("");
        serve.stdout(Stdio::null()).stderr(stderr);
        let mut host = hotmerge_tests::Process::spawn(&mut serve);
        let mark = || {
            let mut call = lab.command();
            call.args(["call", "actor", "mark"]);
            run(&mut call, SOON).stdout == b"1"
        };
        while !mark() {
            assert!(host.is_running(), "the host ended");
        }
        lab.hotmerge(["stop"]).ok();
        assert!(host.wait(SOON).is_some_and(|status| status.success()));
    }
}

#[test]
fn manual_pages_on_a_full_disk_are_a_sentence() {
    let lab = Lab::new();
    let dir = lab.path("man");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.join("hotmerge.1")).unwrap();
    lab.hotmerge(["man", &dir.display().to_string()])
        .ended_with(1)
        .said(&["failed to write manual pages", "No space left on device"]);
}

/// What terminals take for orders, and what turns the text behind it around.
const ORDERS: &str = "\x1b[2J\x1b]0;title\x07\r\nERROR forged line\u{202e}";

/// Puts orders behind every text.
fn forge(value: &mut Value) {
    match value {
        Value::String(text) => text.push_str(ORDERS),
        Value::Array(list) => list.iter_mut().for_each(forge),
        Value::Object(fields) => fields.values_mut().for_each(forge),
        _ => {}
    }
}

/// Nobody believes a host's own words more than those of its plugins.
#[test]
fn a_hosts_own_words_order_no_terminal() {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    let host = lab.start();
    let mut status = lab.hotmerge(["status", "--json"]).ok().json();
    host.stop();
    forge(&mut status["host"]);
    let dir = lab.runtime_dir();
    fs::create_dir_all(dir.path()).unwrap();
    let listener = UnixListener::bind(dir.control_socket()).unwrap();
    let forger = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let request: Value = serde_json::from_str(&line).unwrap();
        let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": status});
        stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
    });
    let mut command = lab.command();
    // As on a terminal: otherwise the program takes all orders out.
    command.arg("status").env("CLICOLOR_FORCE", "1");
    let shown = run(&mut command, SOON).ok().text();
    forger.join().unwrap();
    assert!(shown.contains("forged line"), "{shown:?}");
    for line in shown.lines() {
        let is_clean = !line.contains(|sign: char| sign.is_control() || sign == '\u{202e}');
        assert!(is_clean, "{line:?}");
        assert!(!line.starts_with("ERROR"), "a forged line: {line:?}");
    }
}
