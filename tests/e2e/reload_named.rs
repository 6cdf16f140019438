//! A request that names plugins reports only these, and waits for no others. A package
//! manager asks so after each merge.

use std::fs;

use hotmerge_tests::{Gate, Lab, TestHost, Variant, Visitor, actor};

fn named(name: &str, script: &str) -> Variant {
    actor(script).named(name)
}

#[test]
fn other_packages_do_not_fail_a_named_reload() {
    let lab = Lab::new();
    lab.package("good").put(&[&named("good", "mark=1")]);
    lab.package("bad").put(&[&named("bad", "start=refuse")]);
    fs::create_dir(lab.package("broken").dir()).unwrap();
    lab.package("broken").write_meta("format = 1\n");
    lab.package("second").put(&[&named("good", "mark=2")]);
    let host = lab.start();
    lab.hotmerge(["reload"]).ended_with(5);
    let asked = ["reload", "good", "--package", "good", "--brief"];
    let line = lab.hotmerge(asked).ok().text();
    assert_eq!(line, "good 1.0.0: unchanged\n");
    host.stop();
}

#[test]
fn a_named_reload_judges_the_plugins_own_package() {
    let lab = Lab::new();
    lab.package("good").put(&[&named("good", "mark=1")]);
    let host = lab.start();
    lab.hotmerge(["reload"]).ok();
    // The name is taken: the merged package stays unused, though a plugin of the name runs.
    lab.package("second").put(&[&named("good", "mark=2")]);
    let asked = ["reload", "good", "--package", "second", "--brief"];
    let lines = lab.hotmerge(asked).ended_with(5).text();
    assert!(
        lines.contains("package second: plugin `good` is also in package `good`"),
        "{lines}"
    );
    lab.package("bad").put(&[&named("bad", "start=refuse")]);
    let asked = ["reload", "bad", "--package", "bad", "--brief"];
    let line = lab.hotmerge(asked).ended_with(5).text();
    assert_eq!(line, "bad 1.0.0: refused: the script refuses to start\n");
    host.stop();
}

/// A host with the plugin `good`, and with `slow`, which starts until it is let go.
fn with_slow_start() -> (Lab, TestHost, Visitor) {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    lab.package("good").put(&[&named("good", "mark=1")]);
    let host = lab.start_with(&gate.config("slow"));
    lab.hotmerge(["reload"]).ok();
    lab.package("slow").put(&[&named("slow", "start=wait")]);
    let slow = gate.visitor();
    (lab, host, slow)
}

/// The host answers all the while, and is not to be blamed.
#[test]
fn an_unfinished_reload_names_its_plugins() {
    let (lab, host, slow) = with_slow_start();
    for asked in [&["reload", "slow"][..], &["reload"]] {
        let ran = lab.hotmerge([asked, &["--timeout", "1"]].concat());
        let sentence = "hotmerge: not done after 1 s: `slow` (starting); \
                        running versions keep serving\n";
        assert_eq!(ran.ended_with(12).stderr, sentence);
    }
    slow.let_go();
    host.stop();
}

#[test]
fn a_named_reload_does_not_wait_for_others() {
    let (lab, host, slow) = with_slow_start();
    lab.hotmerge(["reload", "good"]).ok();
    slow.let_go();
    host.stop();
}

#[test]
fn versions_tried_since_are_not_retried() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let host = lab.start();
    let before = lab.hotmerge(["status", "--json"]).ok().json();
    let since = before["host"]["position"].to_string();
    lab.package("one").put(&[&actor("start=refuse")]);
    host.log().wait("the script refuses to start");
    let asked = ["reload", "actor", "--since", &since, "--json"];
    let report = lab.hotmerge(asked).ended_with(5).json();
    assert_eq!(report["plugins"][0]["action"], "refused", "{report:#}");
    assert_eq!(host.stop().count("the script refuses to start"), 1);
}

#[test]
fn a_reload_tells_what_the_watcher_did() {
    let lab = Lab::new();
    lab.package("one").put(&[&actor("mark=1")]);
    let host = lab.start();
    let before = lab.hotmerge(["status", "--json"]).ok().json();
    let since = before["host"]["position"].to_string();
    lab.package("one").put(&[&actor("mark=2").version("2.0.0")]);
    host.log().wait("reloaded");
    let asked = ["reload", "actor", "--since", &since, "--brief"];
    assert_eq!(lab.hotmerge(asked).ok().text(), "actor 2.0.0: reloaded\n");

    lab.package("one").remove();
    let asked = ["reload", "actor", "--since", &since, "--removed", "--brief"];
    assert_eq!(lab.hotmerge(asked).ok().text(), "actor 2.0.0: removed\n");
    // A host that was started in between never knew it.
    lab.hotmerge(["reload", "actor", "--removed"]).ok();
    lab.hotmerge(["reload", "actor"]).ended_with(1);
    host.stop();
}

#[test]
fn verify_judges_what_a_configuration_names() {
    let lab = Lab::new();
    let config = lab.path("host.toml").display().to_string();
    let dir = lab.plugin_dir();
    let grants = "[plugin.good]\nallow = [\"net\"]";
    fs::write(&config, format!("plugin_dir = {dir:?}\n{grants}\n")).unwrap();
    let asked = ["verify", "--config", &config, "--brief"];
    assert_eq!(lab.hotmerge(asked).ok().text(), "");
    lab.package("good").put(&[&named("good", "mark=1")]);
    lab.package("old")
        .put(&[&named("old", "mark=1").with_abi(9, 0)]);
    let line = lab.hotmerge(asked).ended_with(5).text();
    assert!(
        line.starts_with("old 1.0.0: ") && line.contains("9.0"),
        "{line}"
    );
}
