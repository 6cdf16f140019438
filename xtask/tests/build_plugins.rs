//! What `build-plugins` stages, removes, refuses and says, without a host.

mod common;

use std::{
    fs,
    os::unix::{
        fs::PermissionsExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Command, Stdio},
};

use common::{HELLO, dev, failure, field, inode, lines, one_plugin};
use hotmerge_meta::Meta;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

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

    // Something that builds but is not a plugin stops all as well.
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
    assert_eq!(lines(&mut dev(&scratch)).len(), 1, "it is reported once");
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
fn signals_of_the_starter_do_not_matter() {
    let scratch = one_plugin();
    // Runs in place of cargo, and prints which signals it and the driver have blocked and ignored.
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
    // Ignoring these means that no terminal may end the build.
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
fn a_driver_with_term_blocked_can_be_stopped() {
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
