//! Restarts of what runs: after a crash, and with other settings.

use super::*;

#[test]
fn a_new_instance_replaces_a_crashed_one() {
    let one = plugin("one", "1.0.0", &[]);
    let mut bench = Bench::default();
    let old = bench.live(&one);
    let steps = bench
        .machine
        .apply(name(&one), Event::Replace { ticket: old });
    let new = bench.ticket(&one);
    let package = staged(&one).origin.package().cloned();
    let target = Target {
        meta: Arc::clone(&one),
        origin: Origin::Running(package),
        takes_state: true,
        is_ordered: false,
    };
    assert_eq!(
        done(steps),
        [Now::Begin(new, target).into(), Later::Verify(new).into()]
    );
    drop(bench.verified(&one));
    drop(bench.started(&one, Next::Switch));
    let slot = bench.slot(&one);
    assert_eq!(slot.live().map(|live| live.ticket), Some(new));
    assert_eq!(slot.retiring()[0].ticket, old);
}

#[test]
fn a_refused_version_does_not_hide_a_crash() {
    let one = plugin("one", "1.0.0", &[]);
    let bad = plugin("one", "2.0.0", &[]);
    let mut bench = Bench::default();
    let ticket = bench.live(&one);
    drop(bench.machine.apply(name(&one), Event::Replace { ticket }));
    drop(bench.scanned(&[&bad]));
    drop(bench.verified(&bad));
    drop(bench.failed(&bad, true));
    let (_, target) = bench.slot(&one).candidate().expect("it is replaced yet");
    assert_eq!(target.meta.hash, one.hash);
    assert_eq!(target.origin, Origin::Running(None));
}

#[test]
fn a_given_up_plugin_stays_down_until_replaced() {
    let one = plugin("one", "1.0.0", &[]);
    let mut bench = Bench::default();
    let ticket = bench.live(&one);
    let reason = "too often".to_owned();
    let given_up = Event::GivenUp { ticket, reason };
    drop(bench.machine.apply(name(&one), given_up.clone()));
    assert_eq!(bench.slot(&one).state(), PluginState::Error);
    assert_eq!(bench.slot(&one).reason(), "too often");
    drop(bench.machine.apply(name(&one), Event::Revived { ticket }));
    assert_eq!(bench.slot(&one).state(), PluginState::Active);
    drop(bench.machine.apply(name(&one), given_up));
    let two = plugin("one", "2.0.0", &[]);
    bench.live(&two);
    assert_eq!(bench.slot(&two).state(), PluginState::Active);
}

const NEW_SETTINGS: Reconfigured = Reconfigured {
    live: true,
    candidate: false,
    changed: true,
};

#[test]
fn other_settings_start_the_same_version_anew() {
    let mut bench = Bench::default();
    let one = plugin("one", "1.0.0", &[]);
    bench.live(&one);
    drop(
        bench
            .machine
            .reconfigured(&[(name(&one).clone(), NEW_SETTINGS)]),
    );
    assert_eq!(bench.slot(&one).why(), Some(Why::Reconfigured));
    drop(bench.verified(&one));
    assert_eq!(bench.slot(&one).stage(), Some(Stage::Starting));
    drop(bench.started(&one, Next::Switch));
    let live = bench.slot(&one).live().expect("it runs");
    assert_eq!(live.generation, 2);
    assert!(!bench.slot(&one).is_outdated());
}

#[test]
fn refused_settings_leave_the_version_running() {
    let mut bench = Bench::default();
    let one = plugin("one", "1.0.0", &[]);
    bench.live(&one);
    let of_one = |what| [(name(&one).clone(), what)];
    drop(bench.machine.reconfigured(&of_one(NEW_SETTINGS)));
    drop(bench.verified(&one));
    drop(bench.failed(&one, true));
    let slot = bench.slot(&one);
    assert!(slot.is_outdated() && slot.refused().is_some() && slot.live().is_some());
    // The same settings again change nothing.
    let again = Reconfigured {
        changed: false,
        ..NEW_SETTINGS
    };
    drop(bench.machine.reconfigured(&of_one(again)));
    assert!(bench.slot(&one).candidate().is_none());
    // With those that it runs with, nothing is wrong any more.
    let back = Reconfigured {
        live: false,
        candidate: false,
        changed: true,
    };
    drop(bench.machine.reconfigured(&of_one(back)));
    let slot = bench.slot(&one);
    assert!(!slot.is_outdated() && slot.refused().is_none() && slot.candidate().is_none());
}

#[test]
fn a_refused_version_is_tried_with_new_settings() {
    let mut bench = Bench::default();
    let one = plugin("one", "1.0.0", &[]);
    drop(bench.scanned(&[&one]));
    drop(bench.verified(&one));
    drop(bench.failed(&one, true));
    let changed = Reconfigured {
        changed: true,
        ..Reconfigured::default()
    };
    drop(bench.machine.reconfigured(&[(name(&one).clone(), changed)]));
    drop(bench.verified(&one));
    assert_eq!(bench.slot(&one).stage(), Some(Stage::Starting));
}
