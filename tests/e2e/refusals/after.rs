//! What comes after a refusal.

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_tests::{Lab, actor};
use std::fs;

use crate::bench::{Bench, is_a_sentence};

#[test]
fn a_refused_version_is_retried_on_request() {
    // A reload tells what it did itself: nobody may be faster.
    let bench = Bench::new("watch = false");
    let bad = actor("mark=2 start=refuse").version("9.0.0");
    bench.package().put(&[&bad]);
    bench
        .lab
        .hotmerge(["reload"])
        .ended_with(5)
        .said(&["1 plugin refused", "still runs"]);
    let log = bench.host.log();
    log.wait("refused: ");
    let tried_once = log.len();
    // A request for all plugins reports it again, and does not try it again.
    let told = bench.lab.hotmerge(["reload", "--json"]).ended_with(5);
    assert_eq!(told.json()["plugins"][0]["action"], "refused");
    assert_eq!(told.json()["plugins"][0]["took_ms"], 0.0);
    assert_eq!(told.json()["plugins"][0]["version"], "9.0.0");
    let again = bench
        .lab
        .hotmerge(["reload", "actor", "--json"])
        .ended_with(5);
    assert_eq!(again.json()["plugins"][0]["action"], "refused");
    let refused = log.wait_from(tried_once, "another refusal", |record| {
        record["plugin"] == "actor"
    });
    assert_eq!(refused["message"], "refused: the script refuses to start");
    // Nor does it matter that the same bytes were put there once more.
    let starts = || {
        let history = bench.lab.hotmerge(["history", "actor", "--json"]).ok();
        let history = history.json();
        let steps = history.as_array().expect("a list").iter();
        let starts = steps.filter(|step| step["to"] == "reloading/starting");
        starts.count()
    };
    let before = starts();
    bench.package().put(&[&bad]);
    bench.lab.hotmerge(["reload"]).ended_with(5);
    assert_eq!(starts(), before, "it was not asked for");
    bench.package().put(&[&bad]);
    bench.lab.hotmerge(["reload", "actor"]).ended_with(5);
    assert_eq!(starts(), before + 1, "it was asked for");
    bench.is_undisturbed();
    bench.end();
}

#[test]
fn a_good_version_replaces_a_refused_one() {
    let bench = Bench::new("");
    bench.package().put(&[&actor("mark=2 start=refuse")]);
    bench.fails_to_start(&["refuses"]);
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
fn a_refused_first_version_is_only_an_error() {
    let lab = Lab::new();
    lab.package("bad").put(&[&actor("start=refuse")]);
    let host = lab.start();
    let plugin = host.plugin("actor");
    assert_eq!((plugin.state, plugin.generation), (PluginState::Error, 0));
    assert_eq!(plugin.version.as_deref(), Some("1.0.0"), "what was refused");
    lab.hotmerge(["call", "actor", "mark"])
        .ended_with(9)
        .said(&["no version", "`actor`", "hotmerge status"]);
    host.stop();
}

#[test]
fn a_host_starts_despite_bad_packages() {
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
    assert_eq!(host.plugin("refuses").state, PluginState::Error);
    for package in ["nonsense", "half", "empty"] {
        is_a_sentence(&host.problem(package).reason, &["plugin.meta"]);
    }
    host.stop();
}
