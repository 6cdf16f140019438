//! Plugins that require others, and the end of all of them.

use super::*;

#[test]
fn a_removed_plugin_ends_after_its_last_call() {
    let mut bench = Bench::default();
    let meta = plugin("a", "1.0.0", &[]);
    let ticket = bench.live(&meta);
    let steps = bench
        .machine
        .scanned(Vec::new(), std::slice::from_ref(name(&meta)));
    assert_eq!(
        done(steps),
        [Now::Withdraw.into(), Later::Drain(ticket).into()]
    );
    assert_eq!(bench.slot(&meta).state(), PluginState::Unloading);
    for (event, ending) in [
        (Event::Late { ticket }, Ending::Overdue),
        (Event::Drained { ticket }, Ending::TearingDown),
        (Event::Late { ticket }, Ending::Stuck),
    ] {
        drop(bench.machine.apply(name(&meta), event));
        assert_eq!(bench.slot(&meta).retiring()[0].ending, ending);
    }
    drop(bench.machine.apply(name(&meta), Event::Ended { ticket }));
    assert!(bench.machine.slots().is_empty());
}

#[test]
fn plugins_start_after_requirements_and_stop_before_them() {
    let mut bench = Bench::default();
    let base = plugin("base", "1.0.0", &[]);
    let user = plugin("user", "1.0.0", &[("base", "^1", OnReplace::Rebind)]);
    drop(bench.scanned(&[&user, &base]));
    assert_eq!(done(bench.verified(&user)), []);
    assert_eq!(bench.slot(&user).stage(), Some(Stage::Waiting));
    drop(bench.verified(&base));
    let (first, second) = (bench.ticket(&base), bench.ticket(&user));
    assert_eq!(
        done(bench.started(&base, Next::Switch)),
        [Now::Switch(first).into(), Later::Start(second).into()]
    );
    drop(bench.started(&user, Next::Switch));

    assert_eq!(
        done(bench.machine.stop()),
        [Now::Withdraw.into(), Later::Drain(second).into()]
    );
    assert_eq!(
        done(bench.ended(&user, second)),
        [Now::Withdraw.into(), Later::Drain(first).into()]
    );
}

#[test]
fn an_overdue_dependant_does_not_block_shutdown_forever() {
    let mut bench = Bench::default();
    let base = plugin("base", "1.0.0", &[]);
    let user = plugin("user", "1.0.0", &[("base", "^1", OnReplace::Rebind)]);
    let first = bench.live(&base);
    let ticket = bench.live(&user);
    drop(bench.machine.stop());
    assert_eq!(
        done(bench.machine.apply(name(&user), Event::Late { ticket })),
        [Now::Withdraw.into(), Later::Drain(first).into()]
    );
}

#[test]
fn nothing_new_starts_during_shutdown() {
    let mut bench = Bench::default();
    let (one, two) = (plugin("a", "1.0.0", &[]), plugin("a", "2.0.0", &[]));
    let ticket = bench.live(&one);
    assert_eq!(
        done(bench.machine.stop()),
        [Now::Withdraw.into(), Later::Drain(ticket).into()]
    );
    assert_eq!(bench.scanned(&[&two, &plugin("b", "1.0.0", &[])]), []);
    drop(bench.ended(&one, ticket));
    assert!(bench.machine.slots().is_empty());
}

#[test]
fn cycles_and_missing_plugins_are_refused_with_path() {
    let mut bench = Bench::default();
    let a = plugin("a", "1.0.0", &[("b", "*", OnReplace::Rebind)]);
    let b = plugin("b", "1.0.0", &[("c", "*", OnReplace::Rebind)]);
    let c = plugin("c", "1.0.0", &[("a", "*", OnReplace::Rebind)]);
    drop(bench.scanned(&[&a, &b, &c]));
    drop(bench.verified(&a));
    assert!(
        bench.refusal(&a).contains("a → b → c → a"),
        "{}",
        bench.refusal(&a)
    );

    let mut bench = Bench::default();
    drop(bench.scanned(&[&a, &b]));
    drop(bench.verified(&b));
    let reason = bench.refusal(&b);
    assert!(
        reason.contains("`b` requires `c` *, which is not in"),
        "{reason}"
    );
    drop(bench.verified(&a));
    let reason = bench.refusal(&a);
    assert!(reason.contains("a → b → c"), "{reason}");
}

#[test]
fn a_plugin_that_appears_starts_its_waiting_dependants() {
    let mut bench = Bench::default();
    let base = plugin("base", "1.0.0", &[]);
    let user = plugin("user", "1.0.0", &[("base", "^1", OnReplace::Rebind)]);
    drop(bench.scanned(&[&user]));
    drop(bench.verified(&user));
    assert_eq!(bench.slot(&user).state(), PluginState::Error);
    drop(bench.scanned(&[&base]));
    assert_eq!(bench.slot(&user).state(), PluginState::Detecting);
    bench.live(&base);
    drop(bench.verified(&user));
    assert_eq!(bench.slot(&user).stage(), Some(Stage::Starting));
}

#[test]
fn an_incompatible_version_waits_for_its_dependant() {
    let mut bench = Bench::default();
    let (one, two) = (plugin("base", "1.0.0", &[]), plugin("base", "2.0.0", &[]));
    let user = plugin("user", "1.0.0", &[("base", "^1", OnReplace::Rebind)]);
    bench.live(&one);
    bench.live(&user);
    drop(bench.scanned(&[&two]));
    drop(bench.verified(&two));
    let reason = bench.refusal(&two);
    assert!(reason.contains("user → base"), "{reason}");

    let user = plugin("user", "2.0.0", &[("base", "^2", OnReplace::Rebind)]);
    drop(bench.scanned(&[&user]));
    drop(bench.verified(&two));
    drop(bench.started(&two, Next::Switch));
    drop(bench.verified(&user));
    drop(bench.started(&user, Next::Switch));
    for meta in [two, user] {
        assert_eq!(bench.slot(&meta).live().unwrap().meta, meta);
    }
}

#[test]
fn dependants_rebind_or_reload_as_declared() {
    let mut bench = Bench::default();
    let (one, two) = (plugin("base", "1.0.0", &[]), plugin("base", "1.1.0", &[]));
    let calls = plugin("calls", "1.0.0", &[("base", "^1", OnReplace::Rebind)]);
    let keeps = plugin("keeps", "1.0.0", &[("base", "^1", OnReplace::Reload)]);
    for meta in [&one, &calls, &keeps] {
        bench.live(meta);
    }
    bench.live(&two);
    assert_eq!(bench.slot(&calls).state(), PluginState::Active);
    assert_eq!(bench.slot(&keeps).state(), PluginState::Detecting);
    drop(bench.verified(&keeps));
    drop(bench.started(&keeps, Next::Switch));
    assert_eq!(bench.slot(&keeps).live().unwrap().generation, 2);
}

#[test]
fn plugins_of_a_stopping_host_are_not_removed() {
    let mut bench = Bench::default();
    let one = plugin("a", "1.0.0", &[]);
    bench.live(&one);
    let steps = bench.machine.stop();
    let stopped = Outcome::Stopped(one.hash);
    let is_told =
        |step: &Step| matches!(&step.action, Action::Now(Now::Report(_, it)) if *it == stopped);
    assert!(steps.iter().any(is_told), "{steps:?}");
    assert_eq!(bench.slot(&one).reason(), "the host stops");
}
