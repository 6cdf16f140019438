//! State goes from one version to the next while calls wait, or not at all.

use hotmerge_instance::STATE_LIMIT;
use hotmerge_meta::{Handover, control::Action};
use hotmerge_tests::{GatedHost, actor, call};

fn start(script: &str, config: &str) -> GatedHost {
    GatedHost::new(script, &format!("watch = false\n{config}"))
}

#[test]
fn a_new_version_continues_with_the_old_state() {
    let bench = start("mark=1 state=1", "");
    assert_eq!(
        (bench.host.count("actor"), bench.host.count("actor")),
        (1, 2)
    );
    let report = bench.put("mark=2 state=1");
    assert_eq!(report.action, Action::Reloaded);
    assert!(report.pause_ms.is_some(), "the pause is measured");
    assert_eq!(bench.host.text("actor", "mark"), "2");
    assert_eq!(bench.host.count("actor"), 3);
    bench.host.stop();
}

#[test]
fn calls_during_a_handover_reach_the_new_version() {
    let bench = start("mark=1 state=1", "handover_ms = 60000");
    bench.host.count("actor");
    let reload = bench.put_in_background(&actor("mark=2 state=1 restore=wait"));
    let visitor = bench.gate.visitor();
    let plugin = bench.host.plugin("actor");
    assert_eq!(
        plugin.stage.map(|stage| stage.to_string()).as_deref(),
        Some("handing-over")
    );
    let waiting = bench
        .host
        .in_background(|client| call(client, "actor", "count", b""));
    // It can only be answered after the state has changed hands.
    assert!(!waiting.is_finished());
    visitor.let_go();
    let reply = waiting
        .join()
        .unwrap()
        .expect("no call fails because of a reload");
    assert_eq!(
        (reply.generation, &reply.output_base64.0[..]),
        (2, &2u64.to_le_bytes()[..])
    );
    assert_eq!(reload.join().unwrap().action, Action::Reloaded);
    bench.host.stop();
}

#[test]
fn a_failing_restore_keeps_the_old_version() {
    for script in [
        "restore=refuse",
        "restore=panic",
        "start=refuse",
        "check=refuse",
    ] {
        let bench = start("mark=1 state=1", "");
        bench.host.count("actor");
        let report = bench.put(&format!("mark=2 state=1 {script}"));
        assert_eq!(report.action, Action::Refused, "{script}");
        assert_eq!(bench.host.text("actor", "mark"), "1");
        assert_eq!(bench.host.count("actor"), 2);
        bench.host.reload();
        let log = bench.host.stop();
        assert_eq!(log.count("refused: "), 1, "it is tried once");
    }
}

#[test]
fn a_rollback_can_discard_the_state() {
    let bench = start("mark=1 state=1 restore=refuse", "");
    bench.put("mark=2 state=1");
    bench.host.count("actor");
    let refused = bench.lab.hotmerge(["rollback", "actor"]);
    assert!(refused.stderr.contains("--without-state"), "{refused:?}");
    assert_eq!(bench.host.text("actor", "mark"), "2");
    assert_eq!(bench.host.count("actor"), 2, "nothing was lost");
    let done = bench.lab.hotmerge(["rollback", "actor", "--without-state"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(bench.host.text("actor", "mark"), "1");
    assert_eq!(bench.host.count("actor"), 1, "it began as new");
    bench.host.stop();
}

#[test]
fn a_failing_save_keeps_the_old_version() {
    let bench = start("mark=1 state=1 save=refuse", "");
    bench.host.count("actor");
    let report = bench.put("mark=2 state=1");
    assert_eq!(report.action, Action::Refused);
    assert!(report.reason.unwrap().contains("did not save"));
    assert_eq!(bench.host.count("actor"), 2);
    bench.host.stop();
}

#[test]
fn a_hanging_restore_times_out_and_calls_continue() {
    let bench = start("mark=1 state=1", "handover_ms = 100");
    bench.host.count("actor");
    let reload = bench.put_in_background(&actor("mark=2 state=1 restore=wait"));
    let visitor = bench.gate.visitor();
    let report = reload.join().unwrap();
    assert_eq!(report.action, Action::Refused);
    assert!(report.reason.unwrap().contains("within 100 ms"));
    assert_eq!(bench.host.count("actor"), 2);
    visitor.let_go();
    assert_eq!(bench.put("mark=3 state=1").action, Action::Reloaded);
    assert_eq!(bench.host.count("actor"), 3);
    bench.host.stop();
}

#[test]
fn a_long_call_ends_the_pause_unharmed() {
    let bench = start("mark=1 state=1", "handover_ms = 100");
    let long = bench
        .host
        .in_background(|client| call(client, "actor", "wait", b""));
    let visitor = bench.gate.visitor();
    let report = bench.put("mark=2 state=1");
    assert_eq!(report.action, Action::Refused);
    assert!(
        report
            .reason
            .unwrap()
            .starts_with("1 calls on the running version")
    );
    assert_eq!(bench.host.count("actor"), 1);
    visitor.let_go();
    let reply = long
        .join()
        .unwrap()
        .expect("no call fails because of a reload");
    assert_eq!(reply.generation, 1);
    assert_eq!(bench.host.count("actor"), 2);
    bench.host.stop();
}

#[test]
fn a_live_handover_does_not_pause_calls() {
    let live = |script: &str| actor(script).with_meta(|meta| meta.handover = Handover::Live);
    let bench = GatedHost::with(&live("mark=1 state=1"), "watch = false");
    bench.host.count("actor");
    let reload = bench.put_in_background(&live("mark=2 state=1 restore=wait"));
    let visitor = bench.gate.visitor();
    // Answered by the old version, while the new one takes over.
    assert_eq!(bench.host.count("actor"), 2);
    visitor.let_go();
    let report = reload.join().unwrap();
    assert_eq!((report.action, report.pause_ms), (Action::Reloaded, None));
    assert_eq!(
        bench.host.count("actor"),
        2,
        "what changed after the copy stayed behind"
    );
    bench.host.stop();
}

#[test]
fn a_version_staged_during_a_handover_follows() {
    let bench = start("mark=1 state=1", "handover_ms = 60000");
    bench.host.count("actor");
    let first = bench.put_in_background(&actor("mark=2 state=1 restore=wait"));
    let visitor = bench.gate.visitor();
    let second = bench.put_in_background(&actor("mark=3 state=1"));
    visitor.let_go();
    first.join().unwrap();
    second.join().unwrap();
    assert_eq!(bench.host.text("actor", "mark"), "3");
    assert_eq!(bench.host.plugin("actor").generation, 3);
    assert_eq!(bench.host.count("actor"), 2);
    bench.host.stop();
}

#[test]
fn an_enormous_reason_is_cut_on_entry() {
    for (old, new) in [
        ("save=refuse-at-length", ""),
        ("", "restore=refuse-at-length"),
    ] {
        let bench = start(&format!("mark=1 state=1 {old}"), "save_s = 0");
        let report = bench.put(&format!("mark=2 state=1 {new}"));
        assert_eq!(report.action, Action::Refused, "{old}{new}");
        let reason = report.reason.expect("it says why");
        assert!(reason.len() < 8 << 10, "{} bytes", reason.len());
        assert!(reason.contains("bytes left out"), "{reason}");
        let status = serde_json::to_string(&bench.host.status()).expect("it is JSON");
        assert!(
            status.len() < 64 << 10,
            "a status of {} bytes",
            status.len()
        );
        let log = bench.host.stop();
        let said: usize = log.messages().iter().map(String::len).sum();
        assert!(said < 256 << 10, "a log of {said} bytes");
    }
}

#[test]
fn the_largest_saved_state_is_restored() {
    // Beside it there is the count.
    let most = STATE_LIMIT - size_of::<u64>();
    let bench = start(&format!("mark=1 state={most}"), "save_s = 0");
    bench.host.count("actor");
    assert_eq!(bench.put("mark=2 state=1").action, Action::Reloaded);
    assert_eq!(bench.host.count("actor"), 2);
    let report = bench.put(&format!("mark=3 state={}", most + 1));
    assert_eq!(report.action, Action::Reloaded);
    let report = bench.put("mark=4 state=1");
    let reason = report
        .reason
        .expect("it does not save what cannot be taken over");
    assert!(reason.contains("did not save its state"), "{reason}");
    bench.host.stop();
}
