//! Single orders of events, told as sentences.

use super::*;

/// A machine, and nobody who does what it says but the test.
#[derive(Default)]
struct Bench {
    machine: Machine,
}

fn name(plugin: &PluginMeta) -> &PluginName {
    &plugin.name
}

fn plugin(name: &str, version: &str, requires: &[(&str, &str, OnReplace)]) -> Arc<PluginMeta> {
    let requires = requires.iter().map(|(name, version, on_replace)| Requires {
        name: name.parse().unwrap(),
        version: version.parse().unwrap(),
        on_replace: *on_replace,
    });
    Arc::new(meta(name, version, requires.collect()))
}

impl Bench {
    fn scanned(&mut self, metas: &[&Arc<PluginMeta>]) -> Vec<Step> {
        let changed = metas.iter().map(|meta| (staged(meta), Why::Changed));
        self.machine.scanned(changed.collect(), &[])
    }

    fn slot(&self, meta: &PluginMeta) -> &Slot {
        self.machine.slot(meta.name.as_str()).expect("it is known")
    }

    fn ticket(&self, meta: &PluginMeta) -> Ticket {
        self.slot(meta).candidate().expect("it has a candidate").0
    }

    fn verified(&mut self, meta: &PluginMeta) -> Vec<Step> {
        let ticket = self.ticket(meta);
        self.machine.apply(name(meta), Event::Verified { ticket })
    }

    fn started(&mut self, meta: &PluginMeta, next: Next) -> Vec<Step> {
        let ticket = self.ticket(meta);
        self.machine
            .apply(name(meta), Event::Started { ticket, next })
    }

    fn failed(&mut self, meta: &Arc<PluginMeta>, lasting: bool) -> Vec<Step> {
        let ticket = self.ticket(meta);
        let refused = Refused {
            meta: Arc::clone(meta),
            reason: "no good".to_owned(),
            lasting,
        };
        self.machine
            .apply(name(meta), Event::Failed { ticket, refused })
    }

    /// Brings a version up to the switch.
    fn live(&mut self, meta: &Arc<PluginMeta>) -> Ticket {
        drop(self.scanned(&[meta]));
        drop(self.verified(meta));
        let ticket = self.ticket(meta);
        drop(self.started(meta, Next::Switch));
        ticket
    }

    fn ended(&mut self, meta: &PluginMeta, ticket: Ticket) -> Vec<Step> {
        drop(self.machine.apply(name(meta), Event::Drained { ticket }));
        self.machine.apply(name(meta), Event::Ended { ticket })
    }

    fn refusal(&self, meta: &PluginMeta) -> &str {
        &self.slot(meta).refused().expect("it was refused").reason
    }
}

/// What is to be done, without what is only told.
fn done(steps: Vec<Step>) -> Vec<Action> {
    let told = |action: &Action| {
        matches!(
            action,
            Action::Now(Now::Note(_) | Now::Report(..)) | Action::Later(Later::Persist)
        )
    };
    let actions = steps.into_iter().map(|step| step.action);
    actions.filter(|action| !told(action)).collect()
}

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
    assert_eq!(done(bench.failed(&two, true)), [Now::Resume.into()]);
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
    assert_eq!(bench.refusal(&two), "no good", "it is still told");
}

#[test]
fn a_file_cut_off_falls_back_to_the_store() {
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

#[test]
fn what_ends_with_the_host_is_stopped_not_removed() {
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
    assert_eq!(bench.slot(&one).why(), Some(RECONFIGURED));
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
    // The same settings again are no news.
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
fn a_version_that_was_refused_is_tried_with_other_settings() {
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

/// A hand-over that the operator lets fail ends without the state, and only once.
#[test]
fn a_state_that_may_be_discarded_keeps_nobody_out() {
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
