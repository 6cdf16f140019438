//! Versions hand over their state completely while calls wait, or not at all.

use hotmerge_instance::STATE_LIMIT;
use hotmerge_meta::{Handover, control::Action};
use hotmerge_tests::{Gate, GatedHost, Lab, actor, call};

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

/// Ways in which a running version may keep its state from the next one.
const VETOES: [&str; 3] = ["save=refuse", "save=panic", "save=refuse-at-length"];

#[test]
fn a_reload_can_discard_the_state() {
    for veto in VETOES {
        let bench = start(&format!("mark=1 state=1 {veto}"), "save_s = 0");
        bench.host.count("actor");
        assert_eq!(bench.put("mark=2 state=1").action, Action::Refused);
        let again = bench.lab.hotmerge(["reload", "actor"]).ended_with(5);
        let said = again.text();
        assert!(
            said.contains("hotmerge reload actor --without-state"),
            "{said}"
        );
        // Who panics in a worker is started again, and loses what it never saved.
        if veto != "save=panic" {
            assert_eq!(bench.host.count("actor"), 2, "nothing was lost");
        }
        bench
            .lab
            .hotmerge(["reload", "actor", "--without-state"])
            .ok();
        assert_eq!(bench.host.text("actor", "mark"), "2", "{veto}");
        assert_eq!(bench.host.count("actor"), 1, "it began as new");
        let history = bench.lab.hotmerge(["history", "actor"]).ok().text();
        assert!(history.contains("without the state"), "{history}");
        // The order was for this one time.
        assert_eq!(bench.put("mark=3 state=1").action, Action::Reloaded);
        assert_eq!(bench.host.count("actor"), 2);
        bench.host.stop();
    }
}

#[test]
fn a_reload_without_state_needs_plugins() {
    let bench = start("mark=1 state=1", "");
    let done = bench.lab.hotmerge(["reload", "--without-state"]);
    assert_eq!(done.code, Some(2), "{done:?}");
    bench.host.count("actor");
    bench.stage(&actor("mark=2 state=1"));
    // Also for a version that nobody has tried yet.
    bench
        .lab
        .hotmerge(["reload", "actor", "--without-state"])
        .ok();
    assert_eq!(bench.host.text("actor", "mark"), "2");
    assert_eq!(bench.host.count("actor"), 1, "it began as new");
    bench.host.stop();
}

#[test]
fn a_configured_plugin_keeps_no_update_out() {
    // Its state is of no use to any version, or there is none in time.
    let others = ["restore=refuse", "restore=wait", "call=wait"];
    for veto in VETOES.into_iter().chain(others) {
        let (old, new) = match veto.starts_with("restore") {
            true => ("", veto),
            false => (veto, ""),
        };
        let lab = Lab::new();
        let gate = Gate::new(&lab);
        lab.package("one")
            .put(&[&actor(&format!("mark=1 state=1 {old}"))]);
        let own = "[plugin.actor]\nhandover_failed = \"discard\"\nhandover_ms = 100\n";
        let shown = gate.config("actor").replace("[plugin.actor]\n", own);
        let shown = match shown.contains(own) {
            true => shown,
            false => format!("{own}{shown}"),
        };
        let host = lab.start_with(&format!("watch = false\nsave_s = 0\n{shown}"));
        let busy = host.in_background(|client| call(client, "actor", "count", b""));
        let visitor = match veto.starts_with("call") {
            true => Some(gate.visitor()),
            false => {
                assert!(busy.join().unwrap().is_ok());
                None
            }
        };
        let report = host.reload_after(|| {
            lab.package("one")
                .put(&[&actor(&format!("mark=2 state=1 {new}"))]);
        });
        assert_eq!(
            report.plugins[0].action,
            Action::Reloaded,
            "{veto}: {report:?}"
        );
        drop(visitor);
        assert_eq!(host.text("actor", "mark"), "2", "{veto}");
        assert_eq!(host.count("actor"), 1, "it began as new");
        let log = host.stop();
        assert!(log.count("refused: ") >= 1, "it says why: {veto}");
    }
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
            .starts_with("1 call on the running version")
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
    let limits = "save_s = 0\nhandover_ms = 60000\n";
    let bench = start(&format!("mark=1 state={most}"), limits);
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
