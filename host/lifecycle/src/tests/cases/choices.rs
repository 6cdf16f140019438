//! What operators choose, and which version a host falls back to.

use super::*;

#[test]
fn a_rolled_back_version_stays_out_until_replaced() {
    let mut bench = Bench::default();
    let [one, two, three] = ["1.0.0", "2.0.0", "3.0.0"].map(|it| plugin("a", it, &[]));
    bench.live(&one);
    bench.live(&two);
    drop(
        bench
            .machine
            .roll_back(name(&one), Arc::clone(&one), true)
            .unwrap(),
    );
    drop(bench.verified(&one));
    drop(bench.started(&one, Next::Switch));
    assert_eq!(done(bench.scanned(&[&two])), [], "touched is not changed");
    bench.live(&three);
    assert_eq!(bench.slot(&three).choice(), None);
    bench.live(&two);
    assert_eq!(bench.slot(&two).live().unwrap().meta, two);
}

#[test]
fn a_pin_overrides_the_directory_until_removed() {
    let mut bench = Bench::default();
    let (one, two) = (plugin("a", "1.0.0", &[]), plugin("a", "2.0.0", &[]));
    bench.live(&one);
    drop(bench.machine.pin(name(&one)).unwrap());
    assert_eq!(done(bench.scanned(&[&two])), []);
    let pinned = ChoiceError::Pinned(name(&one).clone());
    assert_eq!(
        bench.machine.roll_back(name(&one), Arc::clone(&two), true),
        Err(pinned)
    );
    drop(bench.machine.unpin(name(&one)).unwrap());
    drop(bench.verified(&two));
    drop(bench.started(&two, Next::Switch));
    assert_eq!(bench.slot(&two).live().unwrap().meta, two);
}

#[test]
fn choices_survive_a_restart() {
    let (one, two) = (plugin("a", "1.0.0", &[]), plugin("a", "2.0.0", &[]));
    for (pinned, instead_of) in [(true, None), (false, Some(two.hash))] {
        let mut bench = Bench::default();
        let choice = Choice {
            meta: Arc::clone(&one),
            pinned,
            instead_of,
        };
        bench.machine.remember(
            name(&one).clone(),
            Some(Arc::clone(&one)),
            Some(choice.clone()),
        );
        let steps = done(bench.scanned(&[&two]));
        let [
            Action::Now(Now::Begin(_, target)),
            Action::Later(Later::Verify(_)),
        ] = &steps[..]
        else {
            panic!("{steps:?}");
        };
        assert_eq!((&target.meta, &target.origin), (&one, &Origin::Store));
        drop(bench.verified(&one));
        drop(bench.started(&one, Next::Switch));
        assert_eq!(bench.slot(&one).choice(), Some(&choice));
    }
}

#[test]
fn a_bad_version_at_start_falls_back() {
    let mut bench = Bench::default();
    let (one, two) = (plugin("a", "1.0.0", &[]), plugin("a", "2.0.0", &[]));
    bench
        .machine
        .remember(name(&one).clone(), Some(Arc::clone(&one)), None);
    drop(bench.scanned(&[&two]));
    drop(bench.verified(&two));
    drop(bench.failed(&two, true));
    assert_eq!(
        bench.slot(&one).candidate().unwrap().1.origin,
        Origin::Store
    );
    drop(bench.verified(&one));
    drop(bench.started(&one, Next::Switch));
    assert_eq!(bench.slot(&one).live().unwrap().meta, one);
    assert_eq!(bench.refusal(&two), "no good", "it is still reported");
}

#[test]
fn a_truncated_file_falls_back_to_the_store() {
    let mut bench = Bench::default();
    let one = plugin("a", "1.0.0", &[]);
    let last_good = Some(Arc::clone(&one));
    bench.machine.remember(name(&one).clone(), last_good, None);
    drop(bench.scanned(&[&one]));
    drop(bench.failed(&one, false));
    let (_, target) = bench.slot(&one).candidate().unwrap();
    assert_eq!(target.origin, Origin::Store);
    drop(bench.failed(&one, false));
    let slot = bench.slot(&one);
    assert!(slot.candidate().is_none(), "the store's is tried once");
}

#[test]
fn refused_bytes_are_never_fallen_back_to() {
    let mut bench = Bench::default();
    let one = plugin("a", "1.0.0", &[]);
    let last_good = Some(Arc::clone(&one));
    bench.machine.remember(name(&one).clone(), last_good, None);
    drop(bench.scanned(&[&one]));
    drop(bench.verified(&one));
    drop(bench.failed(&one, true));
    assert!(bench.slot(&one).candidate().is_none());
}

#[test]
fn a_pin_outlives_a_candidate_of_its_hash() {
    let mut bench = Bench::default();
    let meta = plugin("a", "1.0.0", &[]);
    bench.live(&meta);
    drop(
        bench
            .machine
            .scanned(vec![(staged(&meta), Why::Asked)], &[]),
    );
    drop(bench.machine.pin(name(&meta)).unwrap());
    drop(bench.verified(&meta));
    let choice = bench.slot(&meta).choice();
    assert!(choice.is_some_and(|choice| choice.pinned), "{choice:?}");
}
