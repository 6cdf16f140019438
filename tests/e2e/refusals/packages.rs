//! Packages that are invalid, or conflict with each other.

use hotmerge_meta::OnReplace::Rebind;
use hotmerge_tests::actor;
use std::fs;

use crate::bench::{Bench, a_refusal, is_a_sentence, two};

#[test]
fn packages_with_invalid_names() {
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
fn a_plugin_name_taken_by_another_package() {
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

#[test]
fn a_requirement_that_is_not_there() {
    a_refusal(
        &two().requiring("absent", "^1", Rebind),
        &["`actor` requires `absent` ^1", "actor → absent"],
    );
}

#[test]
fn a_requirement_of_another_version() {
    let bench = Bench::new("");
    let base = actor("mark=b").named("base").version("2.0.0");
    bench.lab.package("base").put(&[&base]);
    bench
        .package()
        .put(&[&two().requiring("base", "^1", Rebind)]);
    bench.is_refused(&["`actor` requires `base` ^1", "found 2.0.0"]);
    bench.end();
}

#[test]
fn a_requirement_that_is_refused_itself() {
    let bench = Bench::new("");
    let base = actor("mark=b").named("base");
    bench.lab.package("base").put(&[&base.with_abi(0, 9)]);
    bench
        .package()
        .put(&[&two().requiring("base", "*", Rebind)]);
    bench.is_refused(&["`actor` requires `base`", "not running", "ABI 0.9"]);
    bench.end();
}

#[test]
fn a_plugin_that_requires_itself() {
    let bench = Bench::new("");
    let base = actor("mark=b").named("base");
    bench
        .lab
        .package("base")
        .put(&[&base.requiring("actor", "*", Rebind)]);
    bench
        .package()
        .put(&[&two().requiring("base", "*", Rebind)]);
    bench.is_refused(&["it requires itself", "actor → base → actor"]);
    bench.end();
}

#[test]
fn requirements_of_a_single_package_are_not_judged() {
    let bench = Bench::new("");
    bench
        .package()
        .put(&[&two().requiring("absent", "^1", Rebind)]);
    let config = bench.lab.path("hotmerge.toml").display().to_string();
    let package = bench.package().dir().display().to_string();
    bench
        .lab
        .hotmerge(["verify", "--config", &config, &package])
        .ok();
    bench.end();
}
