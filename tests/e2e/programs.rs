//! The stable interface: fields, bytes, exit codes. Adding is fine, changing is not.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use hotmerge_tests::{GatedHost, Lab, SOON, TestHost, Workspace, actor, run};
use rustix::process::Signal;
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
            ("watchers", Value::is_array),
            ("rescans", Value::is_u64),
            ("full_looks", Value::is_u64),
            ("last_look", Value::is_string),
            ("position", Value::is_u64),
            ("retained", Value::is_u64),
            ("stuck", Value::is_u64),
            ("overdue", Value::is_u64),
            ("log_dropped", Value::is_u64),
            ("log_sinks", Value::is_array),
        ],
    );
    assert_eq!(status["host"]["pid"], host.pid());
    let watch = status["host"]["watch"].as_str().unwrap();
    assert!(watch.starts_with("inotify"), "{watch}");
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
fn status_says_how_the_directory_is_watched() {
    for (config, says) in [
        ("watch = true", ", watched by inotify"),
        ("watch = \"inotify\"", ", watched by inotify; scanned "),
        (
            "watch = \"poll\"\npoll_ms = 60000",
            ", watched by polling every 60000 ms (by configuration); scanned ",
        ),
        (
            "watch = false",
            ", not watched (off by configuration); scanned ",
        ),
    ] {
        let lab = Lab::new();
        let host = lab.start_with(config);
        let status = lab.hotmerge(["status"]).ok().text();
        assert!(status.contains(says), "{status}");
        host.stop();
    }
}

#[test]
fn debug_shows_all_state_of_a_plugin() {
    let bench = GatedHost::new("mark=1", "watch = false");
    let lab = &bench.lab;
    bench.stage(&actor("mark=2 start=wait"));
    bench.host.signal(Signal::HUP);
    let starting = bench.gate.visitor();
    let debug = lab.hotmerge(["debug", "actor", "--json"]).ok().json();
    has(
        &debug,
        &[
            ("reason", Value::is_string),
            ("directory", Value::is_object),
            ("choice", Value::is_null),
            ("refused", Value::is_null),
            ("health", Value::is_object),
            ("olds", Value::is_array),
        ],
    );
    assert_eq!(debug["stage"], "starting");
    assert_eq!(debug["live"]["progress"], "live");
    assert_eq!(debug["candidate"]["progress"], "starting");
    assert_eq!(debug["why"], "the plugin directory has changed");
    assert_eq!(debug["directory"]["hash"], debug["candidate"]["hash"]);
    let text = lab.hotmerge(["debug", "actor"]).ok().text();
    for line in [
        "state: reloading\n",
        "candidate.progress: starting\n",
        "refused: none\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    starting.let_go();
    lab.hotmerge(["debug", "nobody"])
        .ended_with(1)
        .said(&["there is no plugin `nobody`"]);
    bench.host.stop();
}

#[test]
fn debug_names_the_phase_of_a_worker() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let host = lab.start_with(&format!("watch = false\n{}", lab.living_in("process")));
    let debug = lab.hotmerge(["debug", "actor", "--json"]).ok().json();
    assert_eq!(debug["worker"]["phase"], "serving");
    assert!(debug["worker"]["status"]["pid"].is_u64(), "{debug:#}");
    host.stop();
}

#[test]
fn the_driver_prints_one_documented_line_per_plugin() {
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
fn call_prints_exactly_the_reply() {
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
fn a_failed_call_gives_the_reason_on_stderr() {
    let (lab, host) = host_with_actor();
    for (plugin, method, timeout, code, words) in [
        ("actor", "fail", "30", 8, "it was asked to fail"),
        ("other", "mark", "30", 9, "`other`"),
        ("actor", "nothing", "30", 10, "no method `nothing`"),
        ("actor", "panic", "30", 11, "panicked at"),
        ("actor", "mark", "0", 12, "did not answer within 0 ms"),
        ("actor", "flood", "30", 13, "larger than the limit"),
    ] {
        let call = ["call", plugin, method, "--timeout", timeout];
        let ran = lab.hotmerge(call).ended_with(code);
        assert!(ran.stdout.is_empty());
        let sentence = ran.stderr.trim_end().to_owned();
        ran.said(&["hotmerge: ", words]);
        assert!(
            sentence.matches(" ms").count() <= 1,
            "reported twice: {sentence}"
        );
        let told = lab.hotmerge(call.into_iter().chain(["--json"]));
        let error = told.ended_with(code).json()["error"].clone();
        assert_eq!(error["exit_code"], code);
        assert!(
            error["message"].as_str().unwrap().contains(words),
            "{error}"
        );
    }
    fs::write(lab.path("large"), vec![b'x'; 13 << 20]).unwrap();
    let large = lab.path("large").display().to_string();
    lab.hotmerge(["call", "actor", "echo", "--input", &large])
        .ended_with(13)
        .said(&["16777216 bytes"]);
    lab.hotmerge(["call", "No/Name", "mark"]).ended_with(2);
    lab.hotmerge(["call", "actor", "echo", "--input", "/does/not/exist"])
        .ended_with(1)
        .said(&["failed to read the request", "/does/not/exist"]);
    assert_eq!(lab.hotmerge(["call", "actor", "mark"]).ok().stdout, b"1");
    host.stop();
}

#[test]
fn help_documents_the_exit_codes() {
    let lab = Lab::new();
    let help = lab.hotmerge(["--help"]).ok().text();
    let (_, codes) = help.split_once("Exit codes:").expect("the help has them");
    let listed: Vec<_> = codes
        .lines()
        .filter_map(|line| line.trim_start().split_once("  "))
        .map(|(code, _)| code)
        .collect();
    let all: Vec<_> = (0..=13).map(|code| code.to_string()).collect();
    assert_eq!(listed, all);
    lab.hotmerge(["no-such-command"]).ended_with(2);
    lab.hotmerge(["status", "--no-such-option"]).ended_with(2);
}

#[test]
fn hash_and_verify_work_without_a_host() {
    let lab = Lab::new();
    let (good, other) = (actor("mark=1"), actor("mark=2").named("other"));
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
    // The fixture imports what the built-in policy does not allow.
    let config = lab.path("verify.toml").display().to_string();
    fs::write(&config, "symbols = \"off\"\n").unwrap();
    lab.hotmerge(["verify", &dir, "--config", &config]).ok();

    lab.package("bad").put(&[&other]);
    lab.package("bad").replace("libother.so", &good.bytes);
    let lines = lab
        .hotmerge(["verify", &dir, "--json", "--config", &config])
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
fn reload_of_an_unknown_plugin_fails() {
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
fn plugin_logs_carry_the_trace_of_their_call() {
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
fn a_malformed_request_affects_no_other_client() {
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
    for page in ["hotmerge.1", "hotmerge-serve.1", "hotmerge.toml.5"] {
        assert!(dir.join(page).exists(), "no {page}");
    }
    let version = run(
        Command::new(hotmerge_tests::hotmerge()).arg("--version"),
        SOON,
    )
    .ok();
    assert!(version.text().starts_with("hotmerge "));
}

#[test]
fn extreme_times_do_not_panic() {
    for isolation in ["host", "process"] {
        let lab = Lab::new();
        lab.package("one").put(&[&actor("mark=1")]);
        let host = lab.start_with(&format!("isolation = \"{isolation}\"\n"));
        // The most seconds, and the most that are still a number of milliseconds.
        for most in [u64::MAX, u64::MAX / 1000].map(|most| most.to_string()) {
            let mark = lab.hotmerge(["call", "actor", "mark", "--timeout", &most]);
            assert_eq!(mark.ok().stdout, b"1");
            lab.hotmerge(["reload", "--timeout", &most]).ok();
        }
        let none = lab.hotmerge(["reload", "--timeout", "0"]).ended_with(12);
        let sentence = "hotmerge: the host did not answer within 0 ms\n";
        assert_eq!(none.stderr, sentence);
        host.stop();
    }
}

#[test]
fn paths_that_cross_processes_are_absolute() {
    let lab = Lab::new();
    let config = lab.path("host.toml");
    let right = "plugin_dir = \"plugins\"\nstate_dir = \"state\"\nisolation = \"host\"\n";
    fs::write(&config, right).unwrap();
    let mut serve = lab.command();
    serve.current_dir(lab.path(""));
    serve.args(["serve", "--log-format", "json", "--config", "host.toml"]);
    let host = TestHost::start(serve, lab.runtime_dir());
    let shown = lab.hotmerge(["status", "--json"]).ok().json();
    let is_at = |value: &Value, path: &std::path::Path| {
        assert_eq!(value.as_str(), path.to_str());
    };
    let plugins = lab.plugin_dir().canonicalize().unwrap();
    is_at(&shown["host"]["plugin_dir"], &plugins);
    is_at(&shown["host"]["state_dir"], &lab.state_dir());
    is_at(&shown["host"]["config"]["file"], &config);
    fs::write(&config, format!("{right}drain_ms = \"long\"\n")).unwrap();
    let place = format!("`{}`", config.display());
    lab.hotmerge(["reload", "--config"])
        .ended_with(3)
        .said(&[&place, "drain_ms"]);
    host.stop();
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let lab = Lab::new();
    let mut status = lab.command();
    status.env("HOTMERGE_RUNTIME_DIR", "").args(["status"]);
    let ran = run(&mut status, SOON);
    assert!(!ran.stderr.contains("a value is required"), "{ran:?}");
    let mut serve = lab.command();
    serve.args(["serve", "--check", "--plugin-dir"]);
    serve.arg(lab.plugin_dir());
    for name in ["HOTMERGE_RUNTIME_DIR", "HOTMERGE_STATE_DIR", "HOTMERGE_LOG"] {
        serve.env(name, "");
    }
    run(&mut serve, SOON).ok();
}
