//! How versions and hosts end: after their last call, in time, and never by accident.

use std::{fs, thread};

use hotmerge_daemon::{lifecycle::PluginState, status::Status};
use hotmerge_meta::control::{CallReply, Client, ClientError};
use hotmerge_tests::{Callers, Gate, GatedHost, Lab, TestHost, Visitor, actor, call};
use rustix::process::Signal;

/// A call that does not come back before its visitor is let go.
fn long_call(bench: &GatedHost) -> (Visitor, LongCall) {
    let call = |client: &mut Client| call(client, "actor", "wait", b"");
    let call = bench.host.in_background(call);
    (bench.gate.visitor(), LongCall(call))
}

#[track_caller]
fn wait_for(bench: &GatedHost, what: &str, wanted: impl Fn(&Status) -> bool) {
    bench
        .host
        .wait_for(what, |status| wanted(status).then_some(()));
}

/// The states of the old versions of the plugin.
fn ending(bench: &GatedHost) -> Vec<String> {
    let ending = bench.host.plugin("actor").ending.into_iter();
    ending.map(|ending| ending.state).collect()
}

struct LongCall(thread::JoinHandle<Result<CallReply, ClientError>>);

impl LongCall {
    #[track_caller]
    fn replied(self, mark: &str, generation: u64) {
        let reply = self.0.join().unwrap().expect("the call is answered");
        assert_eq!(reply.output_base64.0, mark.as_bytes());
        assert_eq!(reply.generation, generation);
    }
}

fn nothing_ends(status: &Status) -> bool {
    status.plugins.iter().all(|plugin| plugin.ending.is_empty())
}

// --- Versions

#[test]
fn an_old_version_ends_after_its_last_call() {
    let bench = GatedHost::new("mark=1 teardown=wait", "");
    let (visitor, call) = long_call(&bench);
    assert_eq!(visitor.scene, "call 1");
    bench.put("mark=2");
    assert_eq!(
        bench.host.text("actor", "mark"),
        "2",
        "new calls get the new version"
    );
    let plugin = bench.host.plugin("actor");
    assert_eq!((plugin.state, plugin.generation), (PluginState::Active, 2));
    assert_eq!(ending(&bench), ["draining"]);
    assert_ne!(Some(plugin.ending[0].hash), plugin.hash);

    visitor.let_go();
    call.replied("1", 1);
    // Only now is it torn down, and only when that has returned is it gone.
    let teardown = bench.gate.visitor();
    assert_eq!(teardown.scene, "teardown 1");
    assert_eq!(ending(&bench), ["teardown"]);
    teardown.let_go();
    wait_for(&bench, "the end of the old version", nothing_ends);
    let status = bench.host.status();
    assert_eq!(
        (status.host.overdue, status.host.stuck, status.host.retained),
        (0, 0, 0)
    );
    bench.host.stop();
}

#[test]
fn each_old_version_ends_after_its_last_call() {
    let bench = GatedHost::new("mark=1", "");
    let (first, call_1) = long_call(&bench);
    bench.put("mark=2");
    let (second, call_2) = long_call(&bench);
    bench.put("mark=3");
    assert_eq!(ending(&bench), ["draining", "draining"]);
    second.let_go();
    call_2.replied("2", 2);
    wait_for(&bench, "the end of the second version", |status| {
        status.plugins[0].ending.len() == 1
    });
    first.let_go();
    call_1.replied("1", 1);
    wait_for(&bench, "the end of the first version", nothing_ends);
    assert_eq!(bench.host.text("actor", "mark"), "3");
    bench.host.stop();
}

#[test]
fn an_overdue_drain_is_reported_and_still_answered() {
    let bench = GatedHost::new("mark=1", "drain_ms = 50");
    let (visitor, call) = long_call(&bench);
    bench.put("mark=2");
    wait_for(&bench, "an overdue drain", |status| {
        status.host.overdue == 1
    });
    wait_for(&bench, "its state", |status| {
        status.plugins[0]
            .ending
            .iter()
            .any(|old| old.state == "overdue")
    });
    let record = bench.host.log().wait("calls still run on an old version");
    assert_eq!(record["calls"], 1);
    visitor.let_go();
    call.replied("1", 1);
    wait_for(&bench, "the end of the old version", nothing_ends);
    bench.host.stop();
}

#[test]
fn an_overdue_teardown_is_reported_until_it_returns() {
    let bench = GatedHost::new(
        "mark=1 teardown=wait",
        "isolation = \"host\"\nteardown_ms = 50",
    );
    bench.put("mark=2");
    let teardown = bench.gate.visitor();
    wait_for(&bench, "a stuck teardown", |status| status.host.stuck == 1);
    assert_eq!(ending(&bench), ["stuck"]);
    assert_eq!(bench.host.text("actor", "mark"), "2");
    teardown.let_go();
    wait_for(&bench, "the end of the old version", nothing_ends);
    assert_eq!(bench.host.status().host.stuck, 0);
    bench.host.stop();
}

#[test]
fn a_worker_that_overruns_its_teardown_is_killed() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    lab.put(&actor("mark=1 teardown=wait"));
    let config = format!("teardown_ms = 50\n{}", gate.config_in_worker("actor"));
    let Some(host) = lab.start_sandboxed(&config) else {
        return;
    };
    host.reload_after(|| lab.put(&actor("mark=2")));
    let _teardown = gate.visitor();
    let record = host.log().wait("teardown failed");
    assert_eq!(record["level"], "WARN");
    host.wait_for("the end of the old version", |status| {
        nothing_ends(status).then_some(())
    });
    assert_eq!(host.log().count("has not returned"), 0);
    assert_eq!(host.status().host.stuck, 0);
    host.stop();
}

#[test]
fn counters_and_states_change_at_the_same_moment() {
    let bench = GatedHost::new(
        "mark=1 teardown=wait",
        "isolation = \"host\"\nteardown_ms = 20",
    );
    let is_one_picture = |status: &Status| {
        let endings = status.plugins.iter().flat_map(|it| &it.ending);
        let stuck = endings.filter(|it| it.state == "stuck").count() as u64;
        assert_eq!(status.host.stuck, stuck, "{status:#?}");
        stuck
    };
    bench.put("mark=2");
    let teardown = bench.gate.visitor();
    wait_for(&bench, "a stuck teardown", |status| {
        is_one_picture(status) == 1
    });
    teardown.let_go();
    wait_for(&bench, "the end of the old version", |status| {
        is_one_picture(status) == 0 && nothing_ends(status)
    });
    bench
        .host
        .log()
        .wait("the teardown that took too long has returned");
    bench.host.stop();
}

#[test]
fn stopping_with_the_host_is_not_removal() {
    let bench = GatedHost::new("mark=1", "");
    let log = bench.host.log().clone();
    bench.host.stop();
    let record = log.wait("stopped");
    assert_eq!(record["plugin"], "actor");
    assert_eq!(log.count("removed"), 0, "{log}");
}

#[test]
fn a_failing_teardown_still_ends_the_version() {
    for (script, words) in [
        ("mark=1 teardown=refuse", "the script refuses to teardown"),
        ("mark=1 teardown=panic", "the script panics in teardown"),
    ] {
        let bench = GatedHost::new(script, "");
        bench.put("mark=2");
        bench.host.log().wait(words);
        wait_for(&bench, "the end of the old version", nothing_ends);
        bench.host.stop();
    }
}

#[test]
fn a_removed_plugin_finishes_its_calls() {
    let bench = GatedHost::new("mark=1", "");
    let (visitor, call) = long_call(&bench);
    bench.lab.package("one").remove();
    bench.host.reload();
    assert_eq!(bench.host.plugin("actor").state, PluginState::Unloading);
    let error = bench
        .host
        .call("actor", "mark", b"")
        .unwrap_err()
        .to_string();
    assert!(error.contains("no version of plugin `actor`"), "{error}");
    visitor.let_go();
    call.replied("1", 1);
    wait_for(&bench, "the end of the plugin", |status| {
        status.plugins.is_empty()
    });
    bench.host.stop();
}

#[test]
fn an_overtaken_candidate_never_takes_a_call() {
    let bench = GatedHost::new("mark=1", "watch = false");
    bench.stage(&actor("mark=2 start=wait"));
    bench.host.signal(Signal::HUP);
    let slow = bench.gate.visitor();
    assert_eq!(slow.scene, "start 2");
    bench.put("mark=3");
    assert_eq!(bench.host.text("actor", "mark"), "3");
    slow.let_go();
    bench
        .host
        .log()
        .wait("ending a candidate that took no calls");
    let plugin = bench.host.plugin("actor");
    assert_eq!((plugin.generation, plugin.state), (2, PluginState::Active));
    assert_eq!(bench.host.text("actor", "mark"), "3");
    bench.host.stop();
}

// --- Hosts

#[test]
fn a_stopping_host_finishes_its_calls() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut bench = GatedHost::new("mark=1", "");
        let (visitor, call) = long_call(&bench);
        bench.host.signal(signal);
        bench.host.log().wait("stopping");
        assert!(bench.host.process().is_running(), "it ended under a call");
        visitor.let_go();
        call.replied("1", 1);
        assert!(bench.host.ended().success());
        assert!(!bench.lab.runtime_dir().control_socket().exists());
        bench.lab.hotmerge(["status"]).ended_with(4);
    }
}

#[test]
fn a_hanging_call_does_not_block_a_shutdown() {
    let mut bench = GatedHost::new("mark=1", "drain_ms = 50\nteardown_ms = 50");
    let (_visitor, call) = long_call(&bench);
    bench.host.signal(Signal::TERM);
    assert!(bench.host.ended().success());
    bench.host.log().wait("old version had not ended in time");
    assert!(call.0.join().unwrap().is_err());
}

#[test]
fn stop_is_answered_before_the_host_ends() {
    for _ in 0..20 {
        let lab = Lab::new();
        let mut host = lab.start();
        lab.hotmerge(["stop"]).ok();
        assert!(host.ended().success());
    }
}

#[test]
fn a_stopping_host_tears_its_plugins_down() {
    let mut bench = GatedHost::new("mark=1 teardown=wait", "");
    bench.host.signal(Signal::TERM);
    let teardown = bench.gate.visitor();
    assert!(bench.host.process().is_running());
    teardown.let_go();
    assert!(bench.host.ended().success());
}

#[test]
fn a_signal_storm_ends_in_the_final_state() {
    let lab = Lab::new();
    let package = lab.package("one");
    package.put(&[&actor("mark=0")]);
    let host = lab.start_with("watch = false");
    let callers = Callers::start(&host, 1, ["actor"], "mark");
    for change in 1..=100 {
        package.put(&[&actor(&format!("mark={change}"))]);
        for _ in 0..10 {
            host.signal(Signal::HUP);
        }
    }
    host.wait_for("the final state", |status| {
        let last = actor("mark=100").meta.hash;
        (status.plugins[0].hash == Some(last)).then_some(())
    });
    assert_eq!(host.text("actor", "mark"), "100");
    host.wait_for("the end of all old versions", |status| {
        nothing_ends(status).then_some(())
    });
    callers.unharmed();
    host.stop();
}

#[test]
fn a_signal_right_after_start_kills_no_host() {
    for _ in 0..50 {
        let lab = Lab::new();
        let pid_file = lab.runtime_dir().pid_file();
        let mut host = TestHost::spawn(lab.serve(""), lab.runtime_dir());
        // As soon as anybody can know the pid, and not a moment later: no sleeping here.
        while fs::metadata(&pid_file).map_or(0, |file| file.len()) == 0 {
            assert!(
                host.process().is_running(),
                "it did not start\n{}",
                host.log()
            );
        }
        host.signal(Signal::HUP);
        host.log().wait("ready");
        host.stop();
    }
}
