//! From the directory to a live version: switches, hand-overs, trials, and what overtakes what.

use super::*;

#[test]
fn the_host_switches_before_the_old_version_drains() {
    let mut bench = Bench::default();
    let (old, new) = (plugin("a", "1.0.0", &[]), plugin("a", "2.0.0", &[]));
    let first = bench.live(&old);
    assert_eq!(bench.slot(&old).state(), PluginState::Active);
    drop(bench.scanned(&[&new]));
    assert_eq!(bench.slot(&new).state(), PluginState::Detecting);
    let ticket = bench.ticket(&new);
    assert_eq!(done(bench.verified(&new)), [Later::Start(ticket).into()]);
    assert_eq!(bench.slot(&new).state(), PluginState::Reloading);
    assert_eq!(
        done(bench.started(&new, Next::Switch)),
        [Now::Switch(ticket).into(), Later::Drain(first).into()]
    );
    assert_eq!(bench.slot(&new).live().unwrap().generation, 2);
    assert_eq!(bench.slot(&new).retiring()[0].ending, Ending::Draining);
}

#[test]
fn the_same_code_is_not_loaded_again() {
    let mut bench = Bench::default();
    let old = plugin("a", "1.0.0", &[]);
    bench.live(&old);
    let mut new = PluginMeta::clone(&old);
    new.version = "1.0.1".parse().unwrap();
    drop(bench.scanned(&[&Arc::new(new)]));
    assert_eq!(done(bench.verified(&old)), []);
    let live = bench.slot(&old).live().unwrap();
    assert_eq!(
        (live.generation, &*live.meta.version.to_string()),
        (1, "1.0.1")
    );
}

#[test]
fn a_refused_hash_is_retried_only_on_request() {
    let mut bench = Bench::default();
    let (old, bad) = (plugin("a", "1.0.0", &[]), plugin("a", "2.0.0", &[]));
    bench.live(&old);
    drop(bench.scanned(&[&bad]));
    drop(bench.verified(&bad));
    drop(bench.failed(&bad, true));
    assert_eq!(bench.slot(&bad).live().unwrap().meta, old);
    drop(bench.scanned(&[&bad]));
    assert_eq!(done(bench.verified(&bad)), []);
    drop(bench.machine.scanned(vec![(staged(&bad), Why::Asked)], &[]));
    let ticket = bench.ticket(&bad);
    assert_eq!(done(bench.verified(&bad)), [Later::Start(ticket).into()]);
}

#[test]
fn an_overtaken_candidate_is_discarded_once_started() {
    let mut bench = Bench::default();
    let (first, second) = (plugin("a", "1.0.0", &[]), plugin("a", "2.0.0", &[]));
    drop(bench.scanned(&[&first]));
    drop(bench.verified(&first));
    let ticket = bench.ticket(&first);
    drop(bench.scanned(&[&second]));
    let next = Next::Switch;
    let steps = bench
        .machine
        .apply(name(&first), Event::Started { ticket, next });
    assert_eq!(done(steps), [Later::Discard(ticket).into()]);
    assert_ne!(bench.ticket(&second), ticket);
}

#[test]
fn an_unwanted_start_is_broken_off() {
    for is_removed in [true, false] {
        let mut bench = Bench::default();
        let (first, second) = (plugin("a", "1.0.0", &[]), plugin("a", "2.0.0", &[]));
        drop(bench.scanned(&[&first]));
        drop(bench.verified(&first));
        let ticket = bench.ticket(&first);
        let steps = match is_removed {
            true => bench.machine.scanned(Vec::new(), &[name(&first).clone()]),
            false => bench.scanned(&[&second]),
        };
        assert_eq!(done(steps)[0], Later::BreakOff(ticket).into());
    }
}

#[test]
fn changes_during_a_handover_apply_after_it() {
    let mut bench = Bench::default();
    let [one, two, three] = ["1.0.0", "2.0.0", "3.0.0"].map(|it| plugin("a", it, &[]));
    bench.live(&one);
    drop(bench.scanned(&[&two]));
    drop(bench.verified(&two));
    let ticket = bench.ticket(&two);
    assert_eq!(
        done(bench.started(&two, Next::HandOver)),
        [Later::HandOver(ticket).into()]
    );
    assert_eq!(done(bench.scanned(&[&three])), []);
    let steps = bench
        .machine
        .apply(name(&two), Event::HandedOver { ticket });
    let [
        Action::Now(Now::Switch(_)),
        Action::Later(Later::Drain(_)),
        Action::Now(Now::Begin(_, next)),
        Action::Later(Later::Verify(_)),
    ] = &done(steps)[..]
    else {
        panic!("it goes live, and the next one is looked at");
    };
    assert_eq!(next.meta, three);
}

#[test]
fn a_failed_handover_keeps_the_old_version() {
    let mut bench = Bench::default();
    let (one, two) = (plugin("a", "1.0.0", &[]), plugin("a", "2.0.0", &[]));
    bench.live(&one);
    drop(bench.scanned(&[&two]));
    drop(bench.verified(&two));
    drop(bench.started(&two, Next::HandOver));
    let ticket = bench.ticket(&two);
    assert_eq!(
        done(bench.failed(&two, true)),
        [Now::Resume.into(), Later::BreakOff(ticket).into()]
    );
    assert_eq!(bench.slot(&one).live().unwrap().meta, one);
    assert_eq!(bench.slot(&one).state(), PluginState::Active);
}

#[test]
fn a_canary_is_promoted_or_rolled_back() {
    for proves_itself in [true, false] {
        let mut bench = Bench::default();
        let (one, two) = (plugin("a", "1.0.0", &[]), plugin("a", "2.0.0", &[]));
        let first = bench.live(&one);
        drop(bench.scanned(&[&two]));
        drop(bench.verified(&two));
        let ticket = bench.ticket(&two);
        assert_eq!(
            done(bench.started(&two, Next::Try)),
            [Now::BeginTrial(ticket).into()]
        );
        assert!(!bench.slot(&two).is_busy(), "nobody waits for it");
        if proves_itself {
            let steps = bench
                .machine
                .apply(name(&two), Event::Proven { ticket, calls: 1 });
            assert_eq!(
                done(steps),
                [Now::Switch(ticket).into(), Later::Drain(first).into()]
            );
        } else {
            assert_eq!(
                done(bench.failed(&two, true)),
                [Now::EndTrial(ticket).into(), Later::Drain(ticket).into()]
            );
            assert_eq!(bench.slot(&one).live().unwrap().ticket, first);
        }
    }
}

#[test]
fn constant_changes_let_one_candidate_through() {
    let mut bench = Bench::default();
    let version = |number: usize| plugin("a", &format!("{number}.0.0"), &[]);
    bench.live(&version(0));
    let mut generations = 0;
    for number in 1..=40 {
        // Each comes while the one before it starts.
        let new = version(number);
        drop(bench.scanned(&[&new]));
        let slot = bench.slot(&new);
        let (_, target) = slot.candidate().expect("one is under way");
        let current = Arc::clone(&target.meta);
        match slot.stage() {
            Some(Stage::Verifying) => drop(bench.verified(&current)),
            _ => drop(bench.started(&current, Next::Switch)),
        }
        generations = bench.slot(&new).live().unwrap().generation;
    }
    assert!(generations > 4, "only {generations} versions ran");
    // The newest is what runs in the end.
    let newest = version(40);
    while bench.slot(&newest).candidate().is_some() {
        match bench.slot(&newest).stage() {
            Some(Stage::Verifying) => drop(bench.verified(&newest)),
            _ => drop(bench.started(&newest, Next::Switch)),
        }
    }
    assert_eq!(bench.slot(&newest).live().unwrap().meta, newest);
    assert_eq!(bench.slot(&newest).overtaken(), 0);
}

#[test]
fn an_order_overtakes_a_candidate_let_through() {
    let mut bench = Bench::default();
    let version = |number: usize| plugin("a", &format!("{number}.0.0"), &[]);
    let old = version(0);
    bench.live(&old);
    for number in 1..=5 {
        drop(bench.scanned(&[&version(number)]));
        if number == 3 {
            drop(bench.verified(&version(3)));
        }
    }
    let slot = bench.slot(&old);
    assert_eq!(slot.stage(), Some(Stage::Starting));
    assert!(slot.deferred().is_some(), "it is left to start");
    drop(bench.machine.pin(name(&old)).unwrap());
    let slot = bench.slot(&old);
    assert_eq!((slot.candidate(), slot.deferred()), (None, None));
    assert_eq!(slot.live().unwrap().meta, old);
}

/// A hand-over that the operator lets fail ends without the state, and only once.
#[test]
fn a_discardable_state_blocks_no_update() {
    let mut bench = Bench::default();
    let (one, two) = (plugin("a", "1.0.0", &[]), plugin("a", "2.0.0", &[]));
    bench.live(&one);
    drop(bench.scanned(&[&two]));
    drop(bench.verified(&two));
    drop(bench.started(&two, Next::HandOver));
    let ticket = bench.ticket(&two);
    let refused = || Refused {
        meta: Arc::clone(&two),
        reason: "no state".to_owned(),
        lasting: true,
    };
    let event = |ticket| Event::NotHandedOver {
        ticket,
        refused: refused(),
    };
    drop(bench.machine.apply(name(&two), event(ticket)));
    let (again, target) = bench.slot(&two).candidate().expect("it is tried again");
    assert!(again != ticket && !target.takes_state);
    let again = (again, Arc::clone(&target.meta));
    assert_eq!(again.1, two);
    drop(bench.machine.apply(name(&two), event(again.0)));
    assert_eq!(
        bench.slot(&two).candidate(),
        None,
        "it has no state to lose"
    );
    assert_eq!(bench.slot(&two).refused(), Some(&refused()));
}
