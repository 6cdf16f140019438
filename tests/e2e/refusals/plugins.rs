//! Plugins that misbehave when they are started or called.

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_tests::{Lab, actor};
use std::fs;

use crate::bench::{Bench, a_failed_start, is_a_sentence};

#[test]
fn a_plugin_that_refuses_to_start() {
    a_failed_start(
        &actor("mark=2 start=refuse"),
        &["the script refuses to start"],
    );
}

#[test]
fn a_plugin_that_panics_while_it_starts() {
    a_failed_start(
        &actor("mark=2 start=panic"),
        &["panicked at", "the script panics in start"],
    );
}

#[test]
fn a_plugin_whose_self_check_refuses() {
    a_failed_start(
        &actor("mark=2 check=refuse"),
        &["self-check failed", "the script refuses to check"],
    );
}

#[test]
fn a_plugin_whose_self_check_panics() {
    a_failed_start(
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
    bench.fails_to_start(&["did not start within 200 ms"]);
    assert_eq!(bench.host.text("other", "mark"), "3", "others load");
    // Its thread is lost, its place is not: as many again, and more, are brought up.
    for round in 0..4 {
        bench
            .package()
            .put(&[&actor(&format!("mark={round} start=hang"))]);
        bench.fails_to_start(&["did not start within 200 ms"]);
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
fn a_plugin_serves_on_after_a_panicking_call() {
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
fn a_slow_start_does_not_count_as_settling() {
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
        (status.plugins[0].state == PluginState::Detecting).then_some(())
    });
    package.put_meta(&[&slow]);
    let visitor = gate.visitor();
    // Now the settling time passes, and the host scans again several times.
    let began = std::time::Instant::now();
    let mut looks = host.status().host.rescans;
    while began.elapsed().as_millis() < 2 * settle_ms {
        fs::write(package.dir().join(".hint"), b"").unwrap();
        looks = host.wait_for("another scan", |status| {
            (status.host.rescans > looks).then_some(status.host.rescans)
        });
    }
    assert_eq!(host.plugin("actor").state, PluginState::Reloading);
    visitor.let_go();
    host.log().wait("reloaded");
    assert_eq!(host.text("actor", "mark"), "2");
    host.stop();
}
