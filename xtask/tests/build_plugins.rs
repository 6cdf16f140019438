//! What `build-plugins` stages, removes, refuses and says; without a host, or with one that
//! the test plays.

mod common;

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::{
        fs::PermissionsExt as _,
        net::UnixListener,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use common::{Scratch, failure, field, inode, lines};
use hotmerge_meta::{Meta, PidFile, RuntimeDir};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};

const HELLO: &str = "let _ = call; reply.text(\"hello\")";

/// The cheapest build: nothing here is about speed.
fn dev(scratch: &Scratch) -> Command {
    let mut driver = scratch.build_plugins();
    driver.args(["--profile", "dev"]);
    driver
}

/// The same, and it looks for a host in `runtime`.
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

fn one_plugin() -> Scratch {
    let scratch = Scratch::new();
    scratch.plugin("one", "", HELLO);
    scratch
}

#[test]
fn crate_metadata_reaches_the_meta() {
    let scratch = one_plugin();
    scratch.edit(
        "plugins/crates/one/Cargo.toml",
        "[package.metadata.hotmerge]\n",
        "[package.metadata.hotmerge]\nname = \"first\"\npackage = \"App-One\"\n\
         requires = [{ name = \"counter\", version = \">=0.1\" }]\nwants = { fs = [\"/etc/one\"], net = true }\n",
    );
    let built = lines(&mut dev(&scratch));
    let meta = Meta::read_path(&scratch.staged("App-One")).unwrap();
    let [plugin] = meta.plugin.as_slice() else {
        panic!("{meta:?}")
    };
    assert_eq!(plugin.name, "first");
    assert_eq!(plugin.file.as_str(), "libone.so");
    assert_eq!(plugin.version.to_string(), "1.0.0");
    assert_eq!(plugin.requires[0].name, "counter");
    assert_eq!(plugin.wants.fs, ["/etc/one"]);
    assert!(plugin.wants.net);
    assert!(plugin.target.contains("linux"), "{}", plugin.target);
    assert_eq!(plugin.hash.to_string(), field(&built, "first", "hash"));
    assert_eq!(field(&built, "first", "action"), "staged");
}

#[test]
fn a_failed_build_leaves_staging_unchanged() {
    let scratch = one_plugin();
    scratch.plugin("two", "", HELLO);
    lines(&mut dev(&scratch));
    let files = [
        "one/libone.so",
        "one/plugin.meta",
        "two/libtwo.so",
        "two/plugin.meta",
    ];
    let before = files.map(|file| inode(&scratch.staged(file)));

    scratch.edit(
        "plugins/crates/one/src/lib.rs",
        "\"hello\"",
        "\"good morning\"",
    );
    scratch.edit(
        "plugins/crates/two/src/lib.rs",
        "\"hello\"",
        "no_such_thing",
    );
    let (code, said) = failure(&mut dev(&scratch));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("cannot find value `no_such_thing`"), "{said}");
    // `one` is fine.
    assert!(
        said.contains("failed to build `two`; nothing was staged"),
        "{said}"
    );
    assert_eq!(files.map(|file| inode(&scratch.staged(file))), before);

    // Something that builds but is no plugin stops all as well.
    scratch.write("plugins/crates/two/src/lib.rs", "");
    let (code, said) = failure(&mut dev(&scratch));
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("failed to stage `two`: not a hotmerge plugin: it exports no"),
        "{said}"
    );
    assert_eq!(files.map(|file| inode(&scratch.staged(file))), before);
}

#[test]
fn only_removed_plugins_leave_the_staging_directory() {
    let scratch = one_plugin();
    scratch.plugin("two", "", HELLO);
    lines(&mut dev(&scratch));
    let foreign = scratch.staged("foreign/plugin.meta");
    fs::create_dir(scratch.staged("foreign")).unwrap();
    fs::copy(scratch.staged("one/plugin.meta"), &foreign).unwrap();

    fs::remove_dir_all(scratch.path("plugins/crates/two")).unwrap();
    fs::write(scratch.path("plugins/Cargo.lock"), "").unwrap();
    let all = lines(&mut dev(&scratch));
    assert_eq!(field(&all, "two", "action"), "removed");
    assert_eq!(field(&all, "one", "action"), "unchanged");
    assert!(!scratch.staged("two").exists());
    assert!(foreign.exists());
    assert_eq!(lines(&mut dev(&scratch)).len(), 1, "it is told once");
}

#[test]
fn plugins_sharing_a_package_coexist() {
    let scratch = one_plugin();
    scratch.plugin("two", "", HELLO);
    for name in ["one", "two"] {
        let manifest = format!("plugins/crates/{name}/Cargo.toml");
        scratch.edit(&manifest, "hotmerge]\n", "hotmerge]\npackage = \"both\"\n");
    }
    lines(&mut dev(&scratch));
    scratch.edit(
        "plugins/crates/two/src/lib.rs",
        "\"hello\"",
        "\"good morning\"",
    );
    let some = lines(dev(&scratch).args(["-p", "two"]));
    assert_eq!(some.len(), 1);
    assert_eq!(field(&some, "two", "action"), "staged");
    let meta = Meta::read_path(&scratch.staged("both")).unwrap();
    assert_eq!(meta.plugin.len(), 2);
    assert!(scratch.staged("both/libone.so").exists());
}

#[test]
fn an_invalid_manifest_is_named() {
    let scratch = one_plugin();
    let manifest = "plugins/crates/one/Cargo.toml";
    let original = fs::read_to_string(scratch.path(manifest)).unwrap();
    let mark = "[package.metadata.hotmerge]\n";
    for (from, to, expected) in [
        (
            mark,
            format!("{mark}naem = \"x\"\n"),
            "unknown field `naem`",
        ),
        (
            mark,
            format!("{mark}name = \"../x\"\n"),
            "\"../x\" is not a plugin name",
        ),
        (
            mark,
            format!("{mark}package = \"#new\"\n"),
            "\"#new\" is not a package name",
        ),
        (
            "\"cdylib\"",
            "\"rlib\"".to_owned(),
            "add `crate-type = [\"cdylib\"]` to its [lib]",
        ),
    ] {
        scratch.write(manifest, original.replace(from, &to));
        let (code, said) = failure(&mut dev(&scratch));
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("crates/one/Cargo.toml`"), "{said}");
    }

    scratch.write(manifest, original);
    scratch.plugin("two", "", HELLO);
    scratch.edit(
        "plugins/crates/two/Cargo.toml",
        mark,
        &format!("{mark}name = \"one\"\n"),
    );
    let (code, said) = failure(&mut dev(&scratch));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("both declare the plugin `one`"), "{said}");
    assert!(!scratch.staged("").exists());
}

#[test]
fn an_unknown_plugin_name_is_reported() {
    let scratch = one_plugin();
    let (code, said) = failure(dev(&scratch).args(["-p", "three"]));
    assert_eq!(code, 1);
    assert!(
        said.contains("no plugin `three` in this workspace; its plugins are: `one`"),
        "{said}"
    );

    let (code, said) = failure(dev(&scratch).args(["--target", "no-such-machine"]));
    assert_eq!(code, 3, "{said}");

    let (code, _) = failure(dev(&scratch).arg("--no-such-option"));
    assert_eq!(code, 2);

    scratch.write("in the way", "");
    let (code, said) = failure(
        dev(&scratch)
            .arg("--staging")
            .arg(scratch.path("in the way")),
    );
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("failed to create the staging directory `"),
        "{said}"
    );

    fs::remove_dir_all(scratch.path("plugins/crates/one")).unwrap();
    scratch.write(
        "plugins/crates/none/Cargo.toml",
        "[package]\nname = \"none\"\n[lib]\npath = \"lib.rs\"\n",
    );
    scratch.write("plugins/crates/none/lib.rs", "");
    let (code, said) = failure(&mut dev(&scratch));
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("mark their crates with [package.metadata.hotmerge]"),
        "{said}"
    );
}

#[test]
fn works_from_elsewhere_with_the_workspace_configuration() {
    let scratch = one_plugin();
    scratch.write(
        "plugins/.cargo/config.toml",
        "[build]\ntarget-dir = \"configured\"\n",
    );
    let manifest = scratch.path("plugins/crates/one/Cargo.toml");
    let built = lines(
        dev(&scratch)
            .current_dir(scratch.path(""))
            .arg("--manifest-path")
            .arg(manifest),
    );
    assert_eq!(field(&built, "one", "action"), "staged");
    assert!(
        scratch
            .path("plugins/configured/hotmerge/staging/one/libone.so")
            .exists()
    );
}

#[test]
fn a_piped_table_has_no_colours() {
    let scratch = one_plugin();
    let mut driver = scratch.driver();
    driver.args(["build-plugins", "--offline", "--profile", "dev"]);
    let output = driver
        .arg("--runtime-dir")
        .arg(scratch.path("nobody"))
        .output()
        .unwrap();
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(!table.contains('\x1b'), "{table}");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..3], ["plugin", "version", "hash"]);
    assert_eq!(rows[1][..4], ["one", "1.0.0", "-", "→"]);
    assert_eq!(rows[1][5], "staged");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches("no host is running in").count(), 1, "{said}");
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

/// Plays a host that serves a directory and has nothing to do. Returns what it was asked.
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
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let closed = || Stdio::from(io::pipe().unwrap().1);
    for (at, (stdout, stderr, code)) in [
        (None, Some(full()), 1),
        (None, Some(closed()), 0),
        (Some(full()), None, 1),
        (Some(closed()), None, 0),
        (Some(full()), Some(full()), 1),
        (Some(closed()), Some(closed()), 0),
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
        assert_eq!(playing.join().unwrap(), ["position", "reload"], "{at}");
    }
}

/// Some supervisors and shells start programs like that.
#[test]
fn signals_of_the_starter_do_not_matter() {
    let scratch = one_plugin();
    // Stands in the way of cargo, and tells which signals it and the driver have blocked and ignored.
    let told = scratch.path("signals");
    let looks = format!(
        "#!/bin/sh\nfor pid in $PPID $$; do grep -E '^Sig(Blk|Ign)' /proc/$pid/status; done > '{}'\n\
         exec '{}' \"$@\"\n",
        told.display(),
        std::env::var("CARGO").unwrap()
    );
    scratch.write("cargo", looks);
    let cargo = scratch.path("cargo");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let driver = dev(&scratch);
    let mut command = Command::new("env");
    command
        .args(["--block-signal", "--ignore-signal=CHLD,TERM,PIPE,INT,HUP"])
        .arg(driver.get_program())
        .args(driver.get_args())
        .current_dir(scratch.path("plugins"))
        .env("CARGO", &cargo);
    assert_eq!(field(&lines(&mut command), "one", "action"), "staged");
    let told = fs::read_to_string(told).unwrap();
    let sets: Vec<u64> = told
        .lines()
        .map(|line| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap())
        .collect();
    let set = |signals: &[Signal]| {
        let bits = signals.iter().map(|signal| 1_u64 << (signal.as_raw() - 1));
        bits.fold(0, |all, one| all | one)
    };
    // Whoever ignores these wants that no terminal ends the build.
    let kept = set(&[Signal::INT, Signal::HUP]);
    // The C library's own, which `posix_spawn` ignores.
    let others = 0b11 << 31;
    let [driver_blocks, driver_ignores, cargo_blocks, cargo_ignores] = sets[..] else {
        panic!("{told}");
    };
    assert_eq!((driver_blocks, cargo_blocks), (0, 0), "{told}");
    assert_eq!(
        driver_ignores & !others,
        kept | set(&[Signal::PIPE]),
        "{told}"
    );
    assert_eq!(cargo_ignores & !others, kept, "{told}");
}

/// As a supervisor stops a build that takes too long.
#[test]
fn a_driver_started_with_term_blocked_can_be_stopped() {
    let scratch = one_plugin();
    scratch.write("cargo", "#!/bin/sh\necho > \"$0.runs\"\nexec sleep 600\n");
    let cargo = scratch.path("cargo");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let runs = scratch.path("cargo.runs");
    rustix::fs::mkfifoat(rustix::fs::CWD, &runs, 0o600.into()).unwrap();
    let driver = dev(&scratch);
    let mut command = Command::new("env");
    command
        .args(["--block-signal=TERM", "--ignore-signal=TERM"])
        .arg(driver.get_program())
        .args(driver.get_args())
        .current_dir(scratch.path("plugins"))
        .env("CARGO", &cargo)
        .stderr(Stdio::null())
        .process_group(0);
    let mut child = command.spawn().unwrap();
    // Comes when the stand-in for cargo runs.
    fs::read(&runs).unwrap();
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).unwrap();
    let ended = child.wait().unwrap();
    assert_eq!(ended.signal(), Some(Signal::TERM.as_raw()), "{ended}");
    // What it had started: nothing else is in this group.
    kill_process_group(pid, Signal::KILL).unwrap();
}

#[test]
fn a_removed_mark_is_named_as_the_reason() {
    let scratch = one_plugin();
    scratch.plugin("two", "", HELLO);
    lines(&mut dev(&scratch));
    scratch.edit(
        "plugins/crates/two/Cargo.toml",
        "[package.metadata.hotmerge]\n",
        "",
    );
    let all = lines(&mut dev(&scratch));
    assert_eq!(field(&all, "two", "action"), "removed");
    let reason = field(&all, "two", "reason");
    assert!(
        reason.contains("crates/two/Cargo.toml` no longer has [package.metadata.hotmerge]"),
        "{reason}"
    );
}

/// The test holds the pid file, as a host does whose socket is out of reach.
#[test]
fn a_host_without_a_socket_is_sent_a_signal() {
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
