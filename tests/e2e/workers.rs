//! Plugins in workers: how a crash affects calls, and when replacement ends.

use std::fs;

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_meta::control::ReloadParams;
use hotmerge_tests::{Ground, HANGS_MS, Lab, TestHost, UNTIRING, actor, attacks};
use rustix::process::{Pid, Signal, kill_process};

/// A host with the hostile plugin and a neighbour, both in workers; `None` where that cannot be.
fn start(lab: &Lab, more: &str) -> Option<TestHost> {
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    lab.start_sandboxed(more)
}

#[test]
fn a_panicked_instance_is_reported_and_replaced() {
    let lab = Lab::new();
    let Some(host) = start(&lab, UNTIRING) else {
        return;
    };
    let error = host
        .call("attacks", "panic", b"")
        .expect_err("it panics")
        .to_string();
    assert!(
        error.contains("as asked") && error.contains("ending.rs"),
        "{error}"
    );
    let failure = host.replaced("attacks", 1);
    assert!(failure.contains("in `panic`"), "{failure}");
    host.stop();
}

#[test]
fn a_hanging_call_ends_at_its_deadline() {
    let lab = Lab::new();
    let Some(host) = start(&lab, &format!("{UNTIRING}call_ms = {HANGS_MS}\n")) else {
        return;
    };
    let error = host
        .call("attacks", "hang", b"")
        .expect_err("it hangs")
        .to_string();
    assert!(error.contains("deadline"), "{error}");
    host.replaced("attacks", 1);
    assert_eq!(host.text("attacks", "echo"), "");
    host.stop();
}

#[test]
fn a_stopped_worker_is_reported_and_replaced() {
    let lab = Lab::new();
    let Some(host) = start(&lab, UNTIRING) else {
        return;
    };
    let worker = host.plugin("attacks").worker.and_then(|worker| worker.pid);
    let worker = Pid::from_raw(worker.expect("it runs")).expect("it is none of init");
    kill_process(worker, Signal::STOP).expect("it is this test's");
    host.leaves_calls_unanswered("attacks");
    let failure = host.replaced("attacks", 1);
    assert!(failure.contains("did not answer"), "{failure}");
    assert_eq!(host.text("attacks", "echo"), "");
    host.stop();
}

#[test]
fn a_worker_over_its_cpu_limit_is_replaced() {
    let lab = Lab::new();
    let limits = "[plugin.attacks.limits]\ncpu_s = 1\n";
    let Some(host) = start(&lab, &format!("{UNTIRING}{limits}")) else {
        return;
    };
    let error = host.call("attacks", "hang", b"");
    let error = error.expect_err("it is ended long before its deadline");
    let failure = host.replaced("attacks", 1);
    for said in [error.to_string(), failure] {
        let used_up = "used up the 1 s of processor time that `limits.cpu_s` gives it";
        assert!(said.contains(used_up), "{said}");
    }
    assert_eq!(host.text("attacks", "echo"), "");
    assert_eq!(host.text("actor", "mark"), "1");
    host.stop();
}

#[test]
fn too_many_crashes_stop_restarts_until_asked() {
    let lab = Lab::new();
    let Some(host) = start(&lab, "restart = { pause_ms = 0 }\n") else {
        return;
    };
    for _ in 0..6 {
        host.call("attacks", "abort", b"").expect_err("it aborts");
    }
    let error = host.wait_for("it is given up", |status| {
        let plugin = status
            .plugins
            .iter()
            .find(|plugin| plugin.name == "attacks")?;
        (plugin.state == PluginState::Error).then(|| host.call("attacks", "echo", b""))
    });
    let error = error.expect_err("nobody answers").to_string();
    assert!(
        error.contains("crashed more than 5 times in 10 s"),
        "{error}"
    );
    assert_eq!(host.text("actor", "mark"), "1");
    let report = host.reload_with(&ReloadParams {
        plugins: Some(vec!["attacks".parse().unwrap()]),
        retry: true,
        ..ReloadParams::default()
    });
    let reason = report.plugins[0].reason.as_deref().expect("it says so");
    assert!(reason.contains("it starts again"), "{reason}");
    host.answers_again("attacks");
    host.stop();
}

/// Asks for what ends its worker the first time only: the answer, and how often it was asked.
/// `None` where there is no whole sandbox.
fn crash_once(more: &str) -> Option<(Result<String, String>, usize)> {
    let ground = Ground::new();
    let user = ground.give_away();
    let host = ground.start(&[ground.grant("", "rw")], &format!("{user}{more}"))?;
    let path = ground.tree("asked");
    let answer = host.call("reader", "crash-once", path.as_bytes());
    let answer = answer
        .map(|reply| String::from_utf8(reply.output_base64.0).expect("it is text"))
        .map_err(|error| error.to_string());
    host.replaced("reader", 1);
    assert_eq!(host.plugin("reader").restarts, 1);
    host.stop();
    let asked = fs::read_to_string(path).expect("the plugin notes it");
    Some((answer, asked.split_ascii_whitespace().count()))
}

#[test]
fn an_idempotent_call_is_retried_after_a_crash() {
    let Some((answer, asked)) = crash_once("idempotent = [\"read\", \"crash-once\"]\n") else {
        return;
    };
    assert_eq!((answer.as_deref(), asked), (Ok("done"), 2));
}

#[test]
fn other_calls_are_never_retried_after_a_crash() {
    let Some((answer, asked)) = crash_once("idempotent = [\"read\"]\n") else {
        return;
    };
    let error = answer.expect_err("the worker ends");
    assert!(error.contains("aborted in `crash-once`"), "{error}");
    assert_eq!(asked, 1);
}

#[test]
fn an_idempotent_call_is_retried_only_once() {
    let lab = Lab::new();
    let idempotent = "[plugin.attacks]\nidempotent = [\"exit\"]\n";
    let Some(host) = start(&lab, &format!("{UNTIRING}{idempotent}")) else {
        return;
    };
    host.call("attacks", "exit", b"")
        .expect_err("it exits, twice");
    host.replaced("attacks", 2);
    host.stop();
}

#[test]
fn a_forbidden_import_names_symbol_and_rule() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    let Some(host) = lab.start_sandboxed("symbols = \"enforce\"\n") else {
        return;
    };
    let reason = host
        .plugin("attacks")
        .refused
        .expect("it was refused")
        .reason;
    assert!(
        reason.contains("`execve`: imports of the group \"other programs\""),
        "{reason}"
    );
    host.stop();
}
