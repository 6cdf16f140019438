//! Lost output of `hotmerge`: readers that go away, and full disks.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    process::{Command, Stdio},
    thread,
};

use hotmerge_tests::{
    Lab, SOON, TestHost, actor, closed_pipe, commands_of, copy_environment, full_disk, run,
};
use serde_json::{Value, json};

/// A lab whose host runs the second of two versions, and every command that writes something when
/// all is well. All can be repeated in this order.
fn commands() -> (Lab, TestHost, Vec<Vec<String>>) {
    let lab = Lab::new();
    let [old, variant] = ["1", "2"].map(|mark| actor(&format!("mark={mark}")));
    lab.package("one").put(&[&old]);
    let host = lab.start();
    host.reload_after(|| lab.package("one").put(&[&variant]));
    let [old, new] = [&old, &variant].map(|variant| variant.meta.hash.short());
    let file = lab.package("one").file_path(&variant).display().to_string();
    let dir = lab.plugin_dir().display().to_string();
    let config = lab.path("hotmerge.toml").display().to_string();
    let alone = lab.path("run.toml");
    fs::write(&alone, "isolation = \"host\"\nsymbols = \"off\"\n").unwrap();
    let alone = alone.display().to_string();
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
        "reload --brief actor",
        "history",
        "history --json",
        "call actor mark",
        "call actor mark --json",
        "describe actor",
        "describe actor --json",
        "debug actor",
        "debug actor --json",
        "logs",
        "logs --json",
        "logs --follow",
        &format!("rollback actor --to {old}"),
        &format!("rollback actor --to {new} --json"),
        "pin actor",
        "unpin actor",
        "pin actor --json",
        "unpin actor --json",
        &format!("run {file} mark --config {alone}"),
        &format!("routes test level=ERROR --config {config}"),
        &format!("routes test level=ERROR --json --config {config}"),
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
    ];
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    (lab, host, commands.into_iter().map(words).collect())
}

/// Commands without output on success.
const SILENT: [&str; 2] = ["man", "stop"];

/// Commands that write only to terminals (`observe_top`).
const DRAWN: [&str; 1] = ["top"];

const FULL: &str =
    "hotmerge: failed to write to standard output: No space left on device (os error 28)\n";

/// Ends with this exit code, and says this on standard error.
#[track_caller]
fn ends(lab: &Lab, arguments: &[String], stdout: Stdio, code: i32, stderr: &str) {
    let what = arguments.join(" ");
    end(lab.command().args(arguments), &what, stdout, code, stderr);
}

#[track_caller]
fn end(command: &mut Command, what: &str, stdout: Stdio, code: i32, stderr: &str) {
    let child = command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn();
    let ended = child.unwrap().wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(
        (ended.status.code(), &*told),
        (Some(code), stderr),
        "{what}"
    );
}

#[test]
fn every_command_is_listed() {
    let (lab, host, commands) = commands();
    let main = lab.hotmerge(["--help"]).ok().text();
    let tried = commands.iter().map(|words| &*words[0]);
    let tried = tried.filter(|word| !word.starts_with('-'));
    let tried: BTreeSet<_> = tried.chain(SILENT).chain(DRAWN).collect();
    let listed: BTreeSet<_> = commands_of(&main).into_iter().collect();
    assert_eq!(listed, tried);
    host.stop();
}

#[test]
fn commands_without_output_need_no_reader() {
    for stdout in [full_disk, closed_pipe] {
        let lab = Lab::new();
        let mut host = lab.start();
        fs::create_dir(lab.path("man")).unwrap();
        let man = ["man".to_owned(), lab.path("man").display().to_string()];
        ends(&lab, &man, stdout(), 0, "");
        ends(&lab, &["stop".to_owned()], stdout(), 0, "");
        assert!(host.ended().success());
    }
}

/// A command does its work first, and reports lost output afterwards.
#[test]
fn orders_are_carried_out_despite_lost_output() {
    let (lab, host, _) = commands();
    let old = actor("mark=1").meta.hash.short();
    let order = |line: String, stdout, code, sentence| {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        ends(&lab, &words, stdout, code, sentence);
    };
    for (stdout, code, sentence) in [
        (full_disk as fn() -> Stdio, 1, FULL),
        (closed_pipe as fn() -> Stdio, 0, ""),
    ] {
        let back = format!("rollback actor --to {old}");
        order(back, stdout(), code, sentence);
        assert_eq!(host.text("actor", "mark"), "1");
        order("pin actor".to_owned(), stdout(), code, sentence);
        assert!(host.plugin("actor").pinned);
        order("unpin actor".to_owned(), stdout(), code, sentence);
        assert!(!host.plugin("actor").pinned);
        let hash = actor("mark=2").meta.hash.short();
        lab.hotmerge(["rollback", "actor", "--to", &hash]).ok();
    }
    host.stop();
}

#[test]
fn completions_survive_a_lost_output() {
    let (lab, host, _) = commands();
    for words in ["", "-- hotmerge call ac"] {
        for shell in ["bash", "zsh", "/usr/bin/fish", "elvish"] {
            for (stdout, code, stderr) in [(full_disk(), 1, FULL), (closed_pipe(), 0, "")] {
                let mut command = lab.command();
                command.env("HOTMERGE_COMPLETE", shell);
                command.env("_CLAP_COMPLETE_INDEX", "2");
                let what = format!("{shell} {words}");
                command.args(words.split_whitespace());
                end(&mut command, &what, stdout, code, stderr);
            }
        }
    }
    let mut command = lab.command();
    command.env("HOTMERGE_COMPLETE", "cmd");
    run(&mut command, SOON)
        .ended_with(2)
        .said(&["unknown shell `cmd`", "`bash`"]);
    host.stop();
}

/// A full standard error cannot report itself: only the exit code is left.
#[test]
fn a_full_disk_behind_stderr_fails_a_success() {
    let logs = |lab: &Lab| {
        let mut command = lab.command();
        command.arg("logs").stdout(Stdio::piped());
        command
    };
    let closed = |lab: &Lab| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$0\" logs 2>&-"]);
        shell.arg(logs(lab).get_program()).stdout(Stdio::piped());
        copy_environment(&logs(lab), &mut shell);
        shell
    };
    let to = |lab: &Lab, stderr: Stdio| {
        let mut command = logs(lab);
        command.stderr(stderr);
        command
    };
    type Way<'a> = (&'a dyn Fn(&Lab) -> Command, i32);
    let ways: [Way<'_>; 4] = [
        (&|lab| to(lab, Stdio::null()), 0),
        (&|lab| to(lab, full_disk()), 1),
        (&|lab| to(lab, closed_pipe()), 0),
        (&closed, 0),
    ];
    for (at, (way, code)) in ways.into_iter().enumerate() {
        let lab = Lab::new();
        let entry = json!({
            "position": 3, "time": "2026-01-02T03:04:05Z", "level": "info",
            "target": "hotmerge::host", "message": "what was asked for",
        });
        // The program notes on standard error that there were more.
        let answer = json!({ "records": [entry], "next": 4, "end": 4, "lost": 3 });
        let forger = forger(&lab, answer);
        let ended = way(&lab).output().unwrap();
        forger.join().unwrap();
        let told = String::from_utf8_lossy(&ended.stdout);
        assert!(told.contains("what was asked for"), "{at}: {told}");
        assert_eq!(ended.status.code(), Some(code), "{at}");
    }
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
fn a_full_disk_fails_commands_with_a_sentence() {
    let (lab, host, commands) = commands();
    for arguments in &commands {
        ends(&lab, arguments, full_disk(), 1, FULL);
    }
    host.stop();
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
    let both = format!("{sentence}{FULL}");
    ends(&lab, &verify, full_disk(), 5, &both);
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
fn a_host_outlives_an_unwritable_log() {
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
fn a_full_disk_fails_manual_pages_with_sentence() {
    let lab = Lab::new();
    let dir = lab.path("man");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.join("hotmerge.1")).unwrap();
    lab.hotmerge(["man", &dir.display().to_string()])
        .ended_with(1)
        .said(&["failed to write manual pages", "No space left on device"]);
}

/// Escape sequences, and a character that reverses the text after it.
const ORDERS: &str = "\x1b[2J\x1b]0;title\x07\r\nERROR forged line\u{202e}";

/// Appends escape sequences to every text.
fn forge(value: &mut Value) {
    match value {
        Value::String(text) => text.push_str(ORDERS),
        Value::Array(list) => list.iter_mut().for_each(forge),
        Value::Object(fields) => fields.values_mut().for_each(forge),
        _ => {}
    }
}

/// Stands in for a host, and answers one request.
fn forger(lab: &Lab, result: Value) -> thread::JoinHandle<()> {
    let dir = lab.runtime_dir();
    fs::create_dir_all(dir.path()).unwrap();
    let listener = UnixListener::bind(dir.control_socket()).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let request: Value = serde_json::from_str(&line).unwrap();
        let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
        stream.write_all(format!("{answer}\n").as_bytes()).unwrap();
    })
}

/// A host's own texts are trusted no more than those of its plugins.
#[test]
fn a_hosts_own_words_order_no_terminal() {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    let host = lab.start();
    let mut status = lab.hotmerge(["status", "--json"]).ok().json();
    host.stop();
    forge(&mut status["host"]);
    let forger = forger(&lab, status);
    let mut command = lab.command();
    // As on a terminal: otherwise the program removes all escape sequences.
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
