//! What programs rely on: fields, bytes, exit codes. Adding is fine, changing is not.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use hotmerge_tests::{Lab, SOON, TestHost, Workspace, actor, run};
use serde_json::Value;

/// The name of a field, and what its value must be.
type Field = (&'static str, fn(&Value) -> bool);

/// Insists that an object has these fields, each of its kind.
#[track_caller]
fn has(object: &Value, fields: &[Field]) {
    for (field, is_right) in fields {
        let value = object.get(field);
        let value = value.unwrap_or_else(|| panic!("no `{field}` in {object:#}"));
        assert!(is_right(value), "`{field}` is {value}");
    }
}

fn is_hash(value: &Value) -> bool {
    let digits = value.as_str().and_then(|text| text.strip_prefix("sha256:"));
    digits.is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn host_with_actor() -> (Lab, TestHost) {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let host = lab.start();
    (lab, host)
}

#[test]
fn status_is_one_object_with_the_documented_fields() {
    let (lab, host) = host_with_actor();
    lab.package("bad")
        .put(&[&actor("start=refuse").named("bad")]);
    fs::write(lab.plugin_dir().join("stray"), "").unwrap();
    host.reload();
    let status = lab.hotmerge(["status", "--json"]).ok().json();
    has(
        &status,
        &[
            ("host", Value::is_object),
            ("plugins", Value::is_array),
            ("problems", Value::is_array),
        ],
    );
    has(
        &status["host"],
        &[
            ("version", Value::is_string),
            ("pid", Value::is_u64),
            ("abi", Value::is_string),
            ("target", Value::is_string),
            ("plugin_dir", Value::is_string),
            ("started", Value::is_string),
            ("watch", Value::is_string),
            ("rescans", Value::is_u64),
            ("position", Value::is_u64),
            ("retained", Value::is_u64),
            ("stuck", Value::is_u64),
            ("overdue", Value::is_u64),
            ("log_dropped", Value::is_u64),
        ],
    );
    assert_eq!(status["host"]["pid"], host.pid());
    assert_eq!(status["host"]["watch"], "inotify");
    let [good, bad] = &status["plugins"].as_array().unwrap()[..] else {
        panic!("not two plugins: {status:#}");
    };
    has(
        good,
        &[
            ("name", Value::is_string),
            ("version", Value::is_string),
            ("hash", is_hash),
            ("state", Value::is_string),
            ("generation", Value::is_u64),
            ("isolation", Value::is_string),
            ("package", Value::is_string),
            ("address", Value::is_string),
            ("calls_failed", Value::is_u64),
            ("calls_panicked", Value::is_u64),
            ("retained", Value::is_u64),
            ("ending", Value::is_array),
            ("refused", Value::is_null),
        ],
    );
    assert_eq!(good["name"], "actor");
    assert_eq!(good["state"], "active");
    assert_eq!(good["generation"], 1);
    assert_eq!(good["isolation"], "host");
    has(
        bad,
        &[
            ("name", Value::is_string),
            ("hash", Value::is_null),
            ("isolation", Value::is_null),
        ],
    );
    assert_eq!(
        (&bad["state"], &bad["generation"]),
        (&"error".into(), &0.into())
    );
    has(
        &bad["refused"],
        &[("hash", is_hash), ("reason", Value::is_string)],
    );
    has(
        &status["problems"][0],
        &[("package", Value::is_string), ("reason", Value::is_string)],
    );
    host.stop();
}

#[test]
fn the_driver_writes_a_line_a_plugin_with_the_documented_fields() {
    let lab = Lab::new();
    let workspace = Workspace::new("lines", ["alpha", "beta"]);
    let build = || workspace.driver(&lab).run().ok().lines();
    let host = {
        workspace
            .driver(&lab)
            .arguments(["--notify", "never"])
            .run()
            .ok();
        lab.start()
    };
    workspace.edit("beta", "\"beta one\"", "\"beta two\"");
    let lines = build();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        has(
            line,
            &[
                ("plugin", Value::is_string),
                ("version", Value::is_string),
                ("old_hash", is_hash),
                ("hash", is_hash),
                ("action", Value::is_string),
                ("generation", Value::is_u64),
                ("build_ms", Value::is_number),
                ("host_ms", Value::is_number),
            ],
        );
    }
    assert_eq!(lines[0]["hash"], lines[0]["old_hash"]);
    assert_ne!(lines[1]["hash"], lines[1]["old_hash"]);
    assert_eq!(lines[1]["generation"], 2);
    workspace.remove("alpha");
    let removed = &build()[0];
    has(removed, &[("old_hash", is_hash), ("hash", Value::is_null)]);
    assert_eq!(removed["action"], "removed");
    host.stop();
}

#[test]
fn call_writes_the_bytes_of_the_reply_and_nothing_else() {
    let (lab, host) = host_with_actor();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    fs::write(lab.path("request"), &bytes).unwrap();
    let file = lab.path("request").display().to_string();
    let reply = lab
        .hotmerge(["call", "actor", "echo", "--input", &file])
        .ok();
    assert_eq!(reply.stdout, bytes);
    assert_eq!(reply.stderr, "");

    let mut piped = lab.command();
    piped
        .args(["call", "actor", "echo", "--input", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"over a pipe")
        .unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"over a pipe");

    assert_eq!(lab.hotmerge(["call", "actor", "mark"]).ok().stdout, b"1");
    assert_eq!(lab.hotmerge(["call", "actor", "echo"]).ok().stdout, b"");
    let object = lab
        .hotmerge(["call", "actor", "mark", "--json"])
        .ok()
        .json();
    has(
        &object,
        &[("hash", is_hash), ("content_type", Value::is_string)],
    );
    assert_eq!(object["output_base64"], "MQ==");
    assert_eq!(object["generation"], 1);
    host.stop();
}

#[test]
fn a_call_that_fails_says_why_and_writes_nothing() {
    let (lab, host) = host_with_actor();
    for (method, words) in [
        ("fail", "it was asked to fail"),
        ("panic", "panicked at"),
        ("nothing", "no method `nothing`"),
        ("flood", "larger than the limit"),
    ] {
        let ran = lab.hotmerge(["call", "actor", method]).ended_with(8);
        assert!(ran.stdout.is_empty());
        ran.said(&["hotmerge: ", words]);
    }
    lab.hotmerge(["call", "other", "mark"])
        .ended_with(8)
        .said(&["`other`"]);
    lab.hotmerge(["call", "No/Name", "mark"]).ended_with(2);
    lab.hotmerge(["call", "actor", "echo", "--input", "/does/not/exist"])
        .ended_with(1)
        .said(&["failed to read the request", "/does/not/exist"]);
    assert_eq!(lab.hotmerge(["call", "actor", "mark"]).ok().stdout, b"1");
    host.stop();
}

#[test]
fn exit_codes_are_documented_where_people_look() {
    let lab = Lab::new();
    let help = lab.hotmerge(["--help"]).ok().text();
    let (_, codes) = help.split_once("Exit codes:").expect("the help has them");
    let listed: Vec<_> = codes
        .lines()
        .filter_map(|line| line.trim_start().split_once("  "))
        .map(|(code, _)| code)
        .collect();
    assert_eq!(listed, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
    lab.hotmerge(["no-such-command"]).ended_with(2);
    lab.hotmerge(["status", "--no-such-option"]).ended_with(2);
}

#[test]
fn hash_and_verify_need_no_host() {
    let lab = Lab::new();
    let (good, other) = (actor("mark=1"), actor("mark=2"));
    lab.package("good").put(&[&good]);
    let dir = lab.plugin_dir().display().to_string();
    let file = lab.package("good").file_path(&good).display().to_string();
    let hash = lab.hotmerge(["hash", &file, "--json"]).ok().json();
    has(
        &hash,
        &[
            ("file", Value::is_string),
            ("hash", is_hash),
            ("size", Value::is_u64),
        ],
    );
    assert_eq!(hash["hash"], good.meta.hash.to_string());
    let line = lab.hotmerge(["hash", &file]).ok().text();
    assert_eq!(line, format!("{}  {file}\n", good.meta.hash));
    lab.hotmerge(["verify", &dir]).ok();

    lab.package("bad").put(&[&other]);
    lab.package("bad").replace("libactor.so", &good.bytes);
    let lines = lab
        .hotmerge(["verify", &dir, "--json"])
        .ended_with(5)
        .lines();
    for line in &lines {
        has(
            line,
            &[
                ("package", Value::is_string),
                ("plugin", Value::is_string),
                ("ok", Value::is_boolean),
            ],
        );
    }
    let ok: Vec<_> = lines
        .iter()
        .map(|line| (&line["package"], &line["ok"]))
        .collect();
    assert_eq!(
        ok,
        [
            (&"bad".into(), &false.into()),
            (&"good".into(), &true.into())
        ]
    );

    fs::write(lab.path("text"), "text").unwrap();
    let text = lab.path("text").display().to_string();
    lab.hotmerge(["hash", &text])
        .ended_with(5)
        .said(&["not an ELF file"]);
    lab.hotmerge(["hash", "/does/not/exist"]).ended_with(1);
    let empty = lab.path("empty");
    fs::create_dir(&empty).unwrap();
    let empty = empty.display().to_string();
    lab.hotmerge(["verify", &empty])
        .ended_with(1)
        .said(&["no plugin.meta"]);
}

#[test]
fn reload_of_a_plugin_that_nobody_knows_fails() {
    let (lab, host) = host_with_actor();
    lab.hotmerge(["reload", "other"])
        .ended_with(1)
        .said(&["no plugin `other`"]);
    let report = lab.hotmerge(["reload", "actor", "--json"]).ok().json();
    has(
        &report,
        &[
            ("plugins", Value::is_array),
            ("problems", Value::is_array),
            ("installed", Value::is_u64),
            ("plugin_dir", Value::is_string),
            ("took_ms", Value::is_number),
        ],
    );
    assert_eq!(report["plugins"][0]["action"], "unchanged");
    host.stop();
}

#[test]
fn a_plugins_log_is_in_the_hosts_with_the_trace_of_its_call() {
    let (lab, host) = host_with_actor();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    fs::write(lab.path("text"), "hello from inside").unwrap();
    let text = lab.path("text").display().to_string();
    lab.hotmerge(["call", "actor", "log", "--input", &text, "--trace", &parent])
        .ok();
    let record = host.log().wait("hello from inside");
    assert_eq!(record["plugin"], "actor");
    assert_eq!(record["level"], "WARN");
    assert_eq!(record["trace_id"], trace);
    assert_eq!(record["span_id"].as_str().map(str::len), Some(16));
    host.stop();
}

#[test]
fn a_client_that_talks_nonsense_disturbs_nobody() {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    let (lab, host) = host_with_actor();
    let connect = || UnixStream::connect(lab.runtime_dir().control_socket()).unwrap();
    for (sent, code) in [
        (&b"nonsense\n"[..], "-32700"),
        (b"{\"jsonrpc\":\"2.0\"}\n", "-32600"),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"dance\"}\n",
            "-32601",
        ),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"call\",\"params\":[]}\n",
            "-32602",
        ),
    ] {
        let mut stream = connect();
        stream.write_all(sent).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(code), "{answer}");
    }
    // One that never ends its line, and one that goes away in the middle.
    let mut half = connect();
    half.write_all(b"{\"jsonrpc\":").unwrap();
    drop(half);
    let mut endless = connect();
    endless.set_write_timeout(Some(SOON)).unwrap();
    let chunk = vec![b'x'; 1 << 20];
    while endless.write_all(&chunk).is_ok() {}

    assert_eq!(host.text("actor", "mark"), "1");
    host.stop();
}

#[test]
fn completions_and_manual_pages_are_written() {
    let lab = Lab::new();
    let bash = lab.hotmerge(["completions", "bash"]).ok().text();
    assert!(bash.contains("_hotmerge"), "{bash}");
    let dir = lab.path("man");
    fs::create_dir(&dir).unwrap();
    lab.hotmerge(["man", &dir.display().to_string()]).ok();
    assert!(dir.join("hotmerge.1").exists() && dir.join("hotmerge-serve.1").exists());
    let version = run(
        Command::new(hotmerge_tests::hotmerge()).arg("--version"),
        SOON,
    )
    .ok();
    assert!(version.text().starts_with("hotmerge "));
}
