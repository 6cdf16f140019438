//! What `build-plugins` stages, removes, refuses and says; without a host, or with one that
//! the test plays.

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    process::Command,
    thread,
};

use common::{Scratch, failure, field, inode, lines};
use hotmerge_meta::{Meta, PidFile, RuntimeDir};
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
    assert!(said.contains("nothing was staged"), "{said}");
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
                    "plugin_dir": "/elsewhere",
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
    assert!(said.contains("the host serves `/elsewhere`"), "{said}");
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
    assert_eq!(signals.wait().next(), Some(signal_hook::consts::SIGHUP));
}
