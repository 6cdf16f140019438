//! Bad plugins: each is refused with one sentence, everybody can see why, and what runs goes
//! on as if nothing had been.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
};

use hotmerge_daemon::{lifecycle::State, status::PluginStatus};
use hotmerge_meta::{Digest, META_FILE, Meta};
use hotmerge_tests::{Callers, Lab, Package, TestHost, Variant, actor, plain, skipped};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// A host with one good plugin that is called all the while.
struct Bench {
    lab: Lab,
    host: TestHost,
    callers: Callers,
    before: PluginStatus,
}

impl Bench {
    fn new(config: &str) -> Self {
        let lab = Lab::new();
        lab.package("victim").put(&[&actor("mark=1")]);
        let host = lab.start_with(config);
        Self {
            callers: Callers::start(&host, 1, ["actor"], "mark"),
            before: host.plugin("actor"),
            lab,
            host,
        }
    }

    fn package(&self) -> Package {
        self.lab.package("victim")
    }

    /// Lets the host look, and insists that it says why what it found is refused.
    #[track_caller]
    fn is_refused(&self, words: &[&str]) {
        self.host.reload();
        let plugin = self.host.plugin("actor");
        let reason = plugin
            .refused
            .as_ref()
            .expect("it is refused")
            .reason
            .clone();
        is_a_sentence(&reason, words);
        // People see the same.
        let shown = self.lab.hotmerge(["status"]).ok().text();
        assert!(shown.contains(&reason), "not shown: {reason}\n{shown}");
        self.is_undisturbed();
    }

    /// Lets the host look, and insists that it says why a package cannot be used.
    #[track_caller]
    fn has_a_problem(&self, package: &str, words: &[&str]) {
        self.lab
            .hotmerge(["reload"])
            .ended_with(5)
            .said(&["cannot be used"]);
        let reason = self.host.problem(package).reason;
        is_a_sentence(&reason, words);
        let shown = self.lab.hotmerge(["status"]).ok().text();
        assert!(shown.contains(&reason), "not shown: {reason}\n{shown}");
        self.is_undisturbed();
    }

    #[track_caller]
    fn is_undisturbed(&self) {
        let now = self.host.plugin("actor");
        assert_eq!(now.state, State::Active);
        assert_eq!(now.generation, self.before.generation);
        assert_eq!(now.address, self.before.address);
        assert_eq!(now.hash, self.before.hash);
        self.callers.go_on();
    }

    /// Ends the calls and the host; both well.
    #[track_caller]
    fn end(self) {
        assert_eq!(self.callers.unharmed()["actor"].generations, [1].into());
        self.host.stop();
    }
}

#[track_caller]
fn is_a_sentence(reason: &str, words: &[&str]) {
    for word in words {
        assert!(reason.contains(word), "no `{word}` in: {reason}");
    }
    assert!(
        !reason.contains(char::is_control),
        "more than one line: {reason:?}"
    );
    assert!(!reason.ends_with('.'), "a full stop: {reason}");
}

/// A package whose meta or file is spoiled so that nothing in it can be understood.
#[track_caller]
fn a_problem(spoil: impl FnOnce(&Package), words: &[&str]) {
    let bench = Bench::new("");
    spoil(&bench.package());
    bench.has_a_problem("victim", words);
    bench.end();
}

/// A new version that is not taken.
#[track_caller]
fn a_refusal(new: &Variant, words: &[&str]) {
    let bench = Bench::new("");
    bench.package().put(&[new]);
    bench.is_refused(words);
    bench.end();
}

fn two() -> Variant {
    actor("mark=2")
}

// --- plugin.meta

#[test]
fn a_missing_meta() {
    let spoil = |package: &Package| fs::remove_file(package.meta_path()).unwrap();
    a_problem(spoil, &["no plugin.meta", "stage the package again"]);
}

#[test]
fn an_empty_meta() {
    a_problem(|package| package.write_meta(""), &[META_FILE, "is empty"]);
}

#[test]
fn an_oversized_meta() {
    let text = format!("# {}\n", "x".repeat(64 * 1024));
    a_problem(
        |package| package.write_meta(&text),
        &[META_FILE, "at most 65536"],
    );
}

#[test]
fn a_meta_that_is_no_toml() {
    a_problem(
        |package| package.write_meta("format = 1\n\n[[plugin]\n"),
        &[META_FILE, "line 3"],
    );
}

#[test]
fn a_meta_that_is_no_text() {
    a_problem(
        |package| package.write_meta(b"format = 1\n\xff\n"),
        &[META_FILE, "not UTF-8", "byte 11"],
    );
}

#[test]
fn a_meta_of_a_newer_format() {
    a_problem(
        |package| package.write_meta("format = 2\nfuture = true\n"),
        &[META_FILE, "format 2", "upgrade the host"],
    );
}

#[test]
fn a_meta_with_a_field_that_nobody_knows() {
    let text = Meta::new(vec![two().meta]).unwrap().to_toml() + "sandbox = \"off\"\n";
    a_problem(|package| package.write_meta(&text), &[META_FILE, "sandbox"]);
}

#[test]
fn a_meta_without_plugins() {
    a_problem(
        |package| package.write_meta("format = 1\nplugin = []\n"),
        &[META_FILE, "names no plugin"],
    );
}

#[test]
fn a_meta_with_two_plugins_of_one_name() {
    let text = Meta::new(vec![two().meta]).unwrap().to_toml();
    let (_, entry) = text.split_once("[[plugin]]").unwrap();
    let twice = format!("{text}\n[[plugin]]{entry}");
    a_problem(|package| package.write_meta(&twice), &["`actor`", "twice"]);
}

#[test]
fn names_that_lead_elsewhere() {
    let bench = Bench::new("");
    let text = Meta::new(vec![two().meta]).unwrap().to_toml();
    let cases = [
        ("\"actor\"", r#""../actor""#, "plugin name"),
        ("\"actor\"", r#""a/b""#, "plugin name"),
        ("\"actor\"", r#""..""#, "plugin name"),
        ("\"actor\"", r#""a\u0007b""#, "plugin name"),
        ("\"libactor.so\"", r#""../libactor.so""#, "plugin file name"),
        ("\"libactor.so\"", r#""/lib/libc.so""#, "plugin file name"),
        ("\"libactor.so\"", r#""..""#, "plugin file name"),
        ("\"libactor.so\"", r#""a\nb.so""#, "plugin file name"),
    ];
    for (from, to, kind) in cases {
        bench.package().write_meta(text.replace(from, to));
        bench.has_a_problem("victim", &[META_FILE, "line", kind]);
    }
    bench.end();
}

#[test]
fn a_hash_that_is_not_the_files() {
    let bench = Bench::new("");
    bench.package().put_meta(&[&two()]);
    let found = bench.before.hash.unwrap().to_string();
    let promised = two().meta.hash.to_string();
    bench.is_refused(&["libactor.so", &found, &promised, "plugin.meta", "build"]);
    bench.end();
}

#[test]
fn another_target() {
    let target = "riscv64gc-unknown-linux-musl";
    a_refusal(
        &two().with_meta(|meta| meta.target = target.to_owned()),
        &[target, hotmerge_daemon::status::TARGET],
    );
}

#[test]
fn a_meta_that_is_put_right_is_believed() {
    let bench = Bench::new("");
    let wrong = two().with_meta(|meta| meta.target = "riscv64gc-unknown-linux-musl".to_owned());
    bench.package().put(&[&wrong]);
    bench.is_refused(&["riscv64gc"]);
    // The very same file, and now the truth about it.
    bench.package().put(&[&two()]);
    bench.host.reload();
    assert_eq!(bench.host.text("actor", "mark"), "2");
    assert_eq!(bench.callers.unharmed()["actor"].generations, [1, 2].into());
    bench.host.stop();
}

#[test]
fn a_meta_that_lies_about_size_or_contract() {
    let bench = Bench::new("");
    let truth = two().meta.size;
    bench
        .package()
        .put(&[&two().with_meta(|meta| meta.size = 7)]);
    bench.is_refused(&["libactor.so", &truth.to_string(), "plugin.meta", "7"]);
    bench
        .package()
        .put(&[&two().with_meta(|meta| meta.abi.minor = 9)]);
    bench.is_refused(&["libactor.so", "ABI 1.1", "plugin.meta", "1.9"]);
    bench.end();
}

// --- The file

#[test]
fn a_file_that_is_missing() {
    let bench = Bench::new("");
    bench.package().put_meta(&[&two()]);
    fs::remove_file(bench.package().file_path(&two())).unwrap();
    bench.is_refused(&["libactor.so", "does not exist"]);
    bench.end();
}

#[test]
fn an_empty_file() {
    let empty = two().with_bytes(Vec::clear);
    a_refusal(&empty, &["libactor.so", "is empty"]);
}

#[test]
fn a_file_that_is_no_shared_object() {
    let script = Variant::new("actor", b"#!/bin/sh\nexec true\n".to_vec());
    let script = script.with_meta(|meta| meta.hash = Digest::of(b"#!/bin/sh\nexec true\n"));
    a_refusal(&script, &["libactor.so", "not an ELF file"]);
}

#[test]
fn a_file_that_ends_too_early() {
    let bench = Bench::new("");
    let whole = two().bytes;
    let ends = [
        1,
        4,
        63,
        64,
        1000,
        whole.len() / 2,
        two().meta.size as usize - 1,
    ];
    for end in ends {
        let half = two().with_meta(|_| {});
        bench.package().put(&[&Variant {
            bytes: whole[..end].to_vec(),
            ..half
        }]);
        bench.is_refused(&["libactor.so"]);
    }
    bench.package().put(&[&two()]);
    bench.host.reload();
    assert_eq!(
        bench.host.text("actor", "mark"),
        "2",
        "the whole file is taken"
    );
}

#[test]
fn a_file_for_another_machine() {
    let (code, name) = if cfg!(target_arch = "aarch64") {
        (62_u16, "x86_64")
    } else {
        (183, "aarch64")
    };
    let foreign = two().with_bytes(|bytes| bytes[18..20].copy_from_slice(&code.to_ne_bytes()));
    a_refusal(&foreign, &[name, std::env::consts::ARCH]);
}

#[test]
fn a_shared_object_that_is_no_plugin() {
    a_refusal(
        &plain().named("actor"),
        &["libactor.so", "exports no `hotmerge_plugin`"],
    );
}

#[test]
fn another_contract() {
    a_refusal(
        &two().with_abi(2, 0),
        &["ABI 2.0", "1.1", "rebuild the plugin"],
    );
}

#[test]
fn a_newer_contract() {
    a_refusal(
        &two().with_abi(1, 2),
        &["ABI 1.2", "newer", "1.1", "upgrade the host"],
    );
}

// --- Things in the place of files

#[test]
fn a_fifo_in_the_place_of_the_file() {
    let bench = Bench::new("");
    let path = bench.package().file_path(&two());
    fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    bench.is_refused(&["libactor.so", "a FIFO", "not a regular file"]);
    bench.end();
}

#[test]
fn a_fifo_in_the_place_of_the_meta() {
    let spoil = |package: &Package| {
        fs::remove_file(package.meta_path()).unwrap();
        mknodat(CWD, package.meta_path(), FileType::Fifo, Mode::RUSR, 0).unwrap();
    };
    a_problem(spoil, &[META_FILE, "a FIFO", "not a regular file"]);
}

#[test]
fn a_socket_in_the_place_of_the_file() {
    let bench = Bench::new("");
    let path = bench.package().file_path(&two());
    fs::remove_file(&path).unwrap();
    let _listener = UnixListener::bind(&path).unwrap();
    bench.is_refused(&["libactor.so", "a socket"]);
    bench.end();
}

#[test]
fn a_device_in_the_place_of_file_and_meta() {
    let bench = Bench::new("");
    // Endless zeros for whoever would read them.
    let zero = |path: &Path| {
        mknodat(
            CWD,
            path,
            FileType::CharacterDevice,
            Mode::RUSR,
            makedev(1, 5),
        )
    };
    if zero(&bench.lab.path("zero")).is_err() {
        return skipped("this user may not make devices");
    }
    let path = bench.package().file_path(&two());
    fs::remove_file(&path).unwrap();
    zero(&path).unwrap();
    bench.is_refused(&["libactor.so", "a device"]);
    fs::remove_file(bench.package().meta_path()).unwrap();
    zero(&bench.package().meta_path()).unwrap();
    bench.has_a_problem("victim", &[META_FILE, "a device"]);
    bench.end();
}

#[test]
fn a_symlink_in_the_place_of_the_file() {
    let bench = Bench::new("");
    let elsewhere = Package::at(bench.lab.path("elsewhere"));
    elsewhere.put(&[&two()]);
    let path = bench.package().file_path(&two());
    fs::remove_file(&path).unwrap();
    symlink(elsewhere.file_path(&two()), &path).unwrap();
    bench.package().put_meta(&[&two()]);
    bench.is_refused(&["libactor.so", "a symlink", "not a regular file"]);
    bench.end();
}

#[test]
fn a_symlink_in_the_place_of_the_meta() {
    let spoil = |package: &Package| {
        let moved = package.dir().join("meta");
        fs::rename(package.meta_path(), &moved).unwrap();
        symlink(moved, package.meta_path()).unwrap();
    };
    a_problem(spoil, &[META_FILE, "a symlink", "not a regular file"]);
}

#[test]
fn a_symlink_in_the_place_of_the_package() {
    let bench = Bench::new("");
    let elsewhere = bench.lab.path("elsewhere");
    fs::rename(bench.package().dir(), &elsewhere).unwrap();
    symlink(&elsewhere, bench.package().dir()).unwrap();
    bench.has_a_problem("victim", &["symbolic link"]);
    bench.end();
}

#[test]
fn a_directory_in_the_place_of_the_file() {
    let bench = Bench::new("");
    let path = bench.package().file_path(&two());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    bench.is_refused(&["libactor.so", "a directory"]);
    bench.end();
}

// --- Packages

#[test]
fn packages_whose_names_are_none() {
    let bench = Bench::new("");
    for name in ["with blank", "bell\u{7}", "-option"] {
        bench.lab.package(name).put(&[&two().named("other")]);
        bench.lab.hotmerge(["reload"]).ended_with(5);
        let reason = bench.host.problem(name).reason;
        is_a_sentence(&reason, &["not a package name"]);
        let shown = bench.lab.hotmerge(["status"]).ok().text();
        assert!(
            !shown.replace('\n', "").contains(char::is_control),
            "{shown:?}"
        );
        bench.lab.package(name).remove();
    }
    fs::write(bench.lab.plugin_dir().join("loose.so"), two().bytes).unwrap();
    bench.has_a_problem("loose.so", &["not a directory"]);
    bench.end();
}

#[test]
fn a_plugin_that_another_package_has_already() {
    let bench = Bench::new("");
    bench
        .lab
        .package("second")
        .put(&[&two(), &actor("mark=3").named("third")]);
    bench.has_a_problem("second", &["`actor`", "package `victim`", "remove one"]);
    assert_eq!(
        bench.host.text("third", "mark"),
        "3",
        "the rest of it counts"
    );
    assert_eq!(bench.callers.unharmed()["actor"].generations, [1].into());
    bench.lab.package("victim").remove();
    bench.host.reload();
    assert_eq!(
        bench.host.text("actor", "mark"),
        "2",
        "now it is the only one"
    );
    assert!(bench.host.status().problems.is_empty());
    bench.host.stop();
}

// --- Plugins that misbehave

#[test]
fn a_plugin_that_refuses_to_start() {
    a_refusal(
        &actor("mark=2 start=refuse"),
        &["the script refuses to start"],
    );
}

#[test]
fn a_plugin_that_panics_while_it_starts() {
    a_refusal(
        &actor("mark=2 start=panic"),
        &["panicked at", "the script panics in start"],
    );
}

#[test]
fn a_plugin_whose_self_check_refuses() {
    a_refusal(
        &actor("mark=2 check=refuse"),
        &["self-check failed", "the script refuses to check"],
    );
}

#[test]
fn a_plugin_whose_self_check_panics() {
    a_refusal(
        &actor("mark=2 check=panic"),
        &[
            "self-check failed",
            "panicked",
            "the script panics in check",
        ],
    );
}

#[test]
fn a_plugin_that_never_finishes_its_start() {
    let bench = Bench::new("start_ms = 200");
    bench.package().put(&[&actor("mark=2 start=hang")]);
    bench
        .lab
        .package("other")
        .put(&[&actor("mark=3").named("other")]);
    bench.is_refused(&["not started within 200 ms"]);
    assert_eq!(bench.host.text("other", "mark"), "3", "others load");
    // Its thread is lost, its place is not: as many again, and more, are brought up.
    for round in 0..4 {
        bench
            .package()
            .put(&[&actor(&format!("mark={round} start=hang"))]);
        bench.is_refused(&["not started within 200 ms"]);
    }
    bench
        .lab
        .package("other")
        .put(&[&actor("mark=4").named("other")]);
    bench.host.reload();
    assert_eq!(bench.host.text("other", "mark"), "4");
    bench.end();
}

#[test]
fn a_plugin_that_panics_in_a_call_goes_on_with_the_next() {
    let bench = Bench::new("");
    for _ in 0..3 {
        let error = bench
            .host
            .call("actor", "panic", b"")
            .unwrap_err()
            .to_string();
        is_a_sentence(&error, &["panicked at", "it was asked to panic"]);
    }
    let plugin = bench.host.plugin("actor");
    assert_eq!((plugin.calls_panicked, plugin.calls_failed), (3, 3));
    // What panicked is not trusted for long: the same code takes its place, and no call notices.
    bench
        .host
        .wait_for("another instance takes its place", |status| {
            let mut plugins = status.plugins.iter();
            let plugin = plugins.find(|plugin| plugin.name == "actor")?;
            let is_another = plugin.generation > bench.before.generation;
            (is_another && plugin.hash == bench.before.hash).then_some(())
        });
    bench.callers.go_on();
    bench.callers.unharmed();
    bench.host.stop();
}

#[test]
fn a_slow_start_is_not_mistaken_for_a_half_written_package() {
    let lab = Lab::new();
    let gate = hotmerge_tests::Gate::new(&lab);
    let package = lab.package("slow");
    package.put(&[&actor("mark=1")]);
    let settle_ms = 100;
    let host = lab.start_with(&format!(
        "settle_ms = {settle_ms}\n{}",
        gate.config("actor")
    ));
    let slow = actor("mark=2 start=wait");
    // First the file alone, so that it differs from its meta for a while.
    package.put_files(&[&slow]);
    host.wait_for("a half-written package", |status| {
        (status.plugins[0].state == State::Detecting).then_some(())
    });
    package.put_meta(&[&slow]);
    let visitor = gate.visitor();
    // Now the settling time passes, and the host looks again several times.
    let began = std::time::Instant::now();
    let mut looks = host.status().host.rescans;
    while began.elapsed().as_millis() < 2 * settle_ms {
        fs::write(package.dir().join(".hint"), b"").unwrap();
        looks = host.wait_for("another look", |status| {
            (status.host.rescans > looks).then_some(status.host.rescans)
        });
    }
    assert_eq!(host.plugin("actor").state, State::Reloading);
    visitor.let_go();
    host.log().wait("reloaded");
    assert_eq!(host.text("actor", "mark"), "2");
    host.stop();
}

// --- What comes after a refusal

#[test]
fn what_was_refused_is_tried_again_when_somebody_asks() {
    // A reload tells what it did itself: nobody may be faster.
    let bench = Bench::new("watch = false");
    bench.package().put(&[&actor("mark=2 start=refuse")]);
    bench
        .lab
        .hotmerge(["reload"])
        .ended_with(5)
        .said(&["1 plugin refused", "still runs"]);
    let log = bench.host.log();
    log.wait("refused: ");
    let tried_once = log.len();
    // Who asks for all is told of it again, and it is not tried again.
    let told = bench.lab.hotmerge(["reload", "--json"]).ended_with(5);
    assert_eq!(told.json()["plugins"][0]["action"], "refused");
    assert_eq!(told.json()["plugins"][0]["took_ms"], 0.0);
    let again = bench
        .lab
        .hotmerge(["reload", "actor", "--json"])
        .ended_with(5);
    assert_eq!(again.json()["plugins"][0]["action"], "refused");
    let refused = log.wait_from(tried_once, "another refusal", |record| {
        record["plugin"] == "actor"
    });
    assert_eq!(refused["message"], "refused: the script refuses to start");
    bench.is_undisturbed();
    bench.end();
}

#[test]
fn a_good_version_after_a_refused_one_is_taken() {
    let bench = Bench::new("");
    bench.package().put(&[&actor("mark=2 start=refuse")]);
    bench.is_refused(&["refuses"]);
    bench.package().put(&[&actor("mark=3")]);
    bench.host.reload();
    let plugin = bench.host.plugin("actor");
    assert!(plugin.refused.is_none());
    assert_eq!(plugin.generation, 2);
    assert_eq!(bench.host.text("actor", "mark"), "3");
    assert_eq!(bench.callers.unharmed()["actor"].generations, [1, 2].into());
    bench.host.stop();
}

#[test]
fn a_first_version_that_is_refused_is_an_error_and_not_a_plugin() {
    let lab = Lab::new();
    lab.package("bad").put(&[&actor("start=refuse")]);
    let host = lab.start();
    let plugin = host.plugin("actor");
    assert_eq!((plugin.state, plugin.generation), (State::Error, 0));
    lab.hotmerge(["call", "actor", "mark"])
        .ended_with(8)
        .said(&["no version", "`actor`", "hotmerge status"]);
    host.stop();
}

#[test]
fn a_host_starts_with_whatever_it_finds() {
    let lab = Lab::new();
    lab.package("good").put(&[&actor("mark=1")]);
    lab.package("refuses")
        .put(&[&actor("start=refuse").named("refuses")]);
    lab.package("nonsense").put(&[&actor("").named("nonsense")]);
    lab.package("nonsense").write_meta("nonsense");
    lab.package("half").put_files(&[&actor("").named("half")]);
    fs::create_dir(lab.plugin_dir().join("empty")).unwrap();
    let host = lab.start();
    assert_eq!(host.text("actor", "mark"), "1");
    assert_eq!(host.plugin("refuses").state, State::Error);
    for package in ["nonsense", "half", "empty"] {
        is_a_sentence(&host.problem(package).reason, &["plugin.meta"]);
    }
    host.stop();
}
