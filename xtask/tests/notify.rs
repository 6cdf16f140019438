//! What the driver asks of a host, which the test plays, and what it says of the answer.

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use common::{HELLO, Scratch, closed_pipe, dev, failure, field, full_disk, lines, one_plugin};
use hotmerge_meta::{PidFile, RuntimeDir};
use serde_json::{Value, json};

/// Builds, and looks for a host in `runtime`.
fn telling(scratch: &Scratch, when: &str, runtime: &RuntimeDir) -> Command {
    let mut driver = telling_somebody(scratch, when);
    driver.arg("--runtime-dir").arg(runtime.path());
    driver
}

fn telling_somebody(scratch: &Scratch, when: &str) -> Command {
    let mut driver = scratch.driver();
    driver
        .args(["build-plugins", "--offline", "--profile", "dev", "--json"])
        .args(["--notify", when]);
    driver
}

#[test]
fn notify_require_needs_a_running_host() {
    let scratch = one_plugin();
    let nobody = RuntimeDir::new(scratch.path("nobody"));
    let (code, said) = failure(&mut telling(&scratch, "require", &nobody));
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("no host is running in"), "{said}");
    // It is staged all the same: a host that starts later finds it.
    assert!(scratch.staged("one/plugin.meta").exists());

    // It is looked for where the host and its client look.
    let elsewhere = scratch.path("elsewhere");
    let mut driver = telling_somebody(&scratch, "require");
    let (_, said) = failure(driver.env(RuntimeDir::VARIABLE, &elsewhere));
    assert!(said.contains(&*elsewhere.to_string_lossy()), "{said}");
}

/// Plays a host: answers each request with what `answer` makes of it.
fn host(
    runtime: &RuntimeDir,
    answer: impl Fn(&Value) -> Value + Send + 'static,
) -> thread::JoinHandle<()> {
    fs::create_dir_all(runtime.path()).unwrap();
    let listener = UnixListener::bind(runtime.control_socket()).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for line in BufReader::new(stream.try_clone().unwrap()).lines() {
            let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let reply =
                json!({ "jsonrpc": "2.0", "id": request["id"], "result": answer(&request) });
            writeln!(stream, "{reply}").unwrap();
        }
    })
}

#[test]
fn a_refusal_is_reported_with_its_exit_code() {
    let scratch = one_plugin();
    scratch.plugin("two", "", HELLO);
    let runtime = RuntimeDir::new(scratch.path("run"));
    let old = format!("sha256:{}", "0".repeat(64));
    let staging = scratch.staged("");
    let playing = host(&runtime, move |request| {
        match request["method"].as_str().unwrap() {
            "position" => json!(7),
            method => {
                assert_eq!(method, "reload");
                // What a watcher made the host do since is part of the answer.
                assert_eq!(request["params"]["since"], 7);
                assert_eq!(request["params"]["plugins"], json!(["one", "two"]));
                json!({
                    "plugins": [
                        { "plugin": "one", "action": "reloaded", "old_hash": old, "generation": 3, "took_ms": 1.5 },
                        { "plugin": "two", "action": "refused", "reason": "it has no manners", "took_ms": 0.5 },
                    ],
                    "problems": [],
                    "installed": 2,
                    "plugin_dir": staging,
                    "took_ms": 2.0,
                })
            }
        }
    });
    let output = telling(&scratch, "require", &runtime).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(5),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    playing.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(field(&told, "one", "action"), "reloaded");
    assert!(field(&told, "one", "old_hash").starts_with("sha256:0000"));
    assert_eq!(told[0]["generation"], 3);
    assert_eq!(field(&told, "two", "reason"), "it has no manners");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("the host serves"), "{said}");
}

/// Plays a host that serves a directory and has nothing to do.
/// Returns, at its end, which methods it was asked for.
fn idle_host(runtime: &RuntimeDir, plugin_dir: &Path) -> thread::JoinHandle<Vec<String>> {
    let plugin_dir = plugin_dir.to_owned();
    let (tell, asked) = mpsc::channel();
    let playing = host(runtime, move |request| {
        let method = request["method"].as_str().unwrap();
        tell.send(method.to_owned()).unwrap();
        match method {
            "position" => json!(7),
            _ => json!({
                "plugins": [],
                "problems": [],
                "installed": 0,
                "plugin_dir": plugin_dir,
                "took_ms": 2.0,
            }),
        }
    });
    thread::spawn(move || {
        playing.join().unwrap();
        asked.into_iter().collect()
    })
}

#[test]
fn a_host_of_another_directory_is_no_host() {
    let scratch = one_plugin();
    lines(&mut dev(&scratch));
    let link = scratch.path("link");
    std::os::unix::fs::symlink(scratch.staged(""), &link).unwrap();
    let relative = Path::new("target/hotmerge/staging");
    for (at, (when, serves, code)) in [
        ("require", Path::new("/elsewhere"), 4),
        ("require", relative, 4),
        ("auto", Path::new("/elsewhere"), 0),
        ("require", &link, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let runtime = RuntimeDir::new(scratch.path(format!("run {at}")));
        let playing = idle_host(&runtime, serves);
        let (got, said) = failure(&mut telling(&scratch, when, &runtime));
        playing.join().unwrap();
        assert_eq!(got, code, "{said}");
        assert_eq!(
            said.contains(&format!("the host serves `{}`", serves.display())),
            serves != link,
            "{said}"
        );
    }
}

/// Failing output must not keep the driver from notifying the host.
#[test]
fn output_that_fails_comes_after_the_work() {
    let scratch = one_plugin();
    lines(&mut dev(&scratch));
    for (at, (stdout, stderr, code)) in [
        (None, Some(full_disk()), 1),
        (None, Some(closed_pipe()), 0),
        (Some(full_disk()), None, 1),
        (Some(closed_pipe()), None, 0),
        (Some(full_disk()), Some(full_disk()), 1),
        (Some(closed_pipe()), Some(closed_pipe()), 0),
    ]
    .into_iter()
    .enumerate()
    {
        let runtime = RuntimeDir::new(scratch.path(format!("run {at}")));
        let playing = idle_host(&runtime, &scratch.staged(""));
        let mut driver = telling(&scratch, "require", &runtime);
        driver.env("CARGO_TERM_QUIET", "true");
        let is_heard = stderr.is_none();
        let output = driver
            .stdout(stdout.unwrap_or_else(Stdio::piped))
            .stderr(stderr.unwrap_or_else(Stdio::piped))
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{at}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        if code == 1 && is_heard {
            assert!(said.contains("No space left on device"), "{said}");
        }
        let asked = playing.join().unwrap();
        assert!(asked.contains(&"reload".to_owned()), "{at}: {asked:?}");
    }
}

/// The test holds the pid file, as a host does whose socket is out of reach.
#[test]
fn a_host_without_socket_gets_a_signal() {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGHUP]).unwrap();
    let scratch = one_plugin();
    let runtime = RuntimeDir::new(scratch.path("run"));
    fs::create_dir_all(runtime.path()).unwrap();
    let pid_file = PidFile::acquire(&runtime).unwrap();
    pid_file.write_pid().unwrap();

    let output = telling(&scratch, "auto", &runtime).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("the host's result is unknown: sent SIGHUP"),
        "{said}"
    );
    assert!(said.contains("nobody listens on `"), "{said}");
    assert!(!said.contains("no host is running"), "{said}");
    assert_eq!(signals.wait().next(), Some(signal_hook::consts::SIGHUP));
}
