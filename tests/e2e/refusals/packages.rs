//! Packages that are none, or in each other's way.

use hotmerge_tests::actor;
use std::fs;

use crate::bench::{Bench, is_a_sentence, two};

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
