//! Random lives of workers, before an executor that is only a model; and single cases.

use proptest::{collection::vec, prelude::*};

use super::*;

/// Carries steps out in mind, and checks that each makes sense when it comes.
struct Model {
    machine: Machine,
    now: Instant,
    /// Whether the current process answers.
    has_current: bool,
    /// Whether a next process is being started.
    has_next: bool,
    /// Whether the host believes that it was given up.
    is_given_up: bool,
    crashes: usize,
    restarts: usize,
}

impl Model {
    fn new() -> Self {
        let name = "a".parse().expect("a name");
        let (machine, steps) = Machine::begin(name, RestartConfig::default());
        let mut model = Self {
            machine,
            now: Instant::now(),
            has_current: false,
            has_next: false,
            is_given_up: false,
            crashes: 0,
            restarts: 0,
        };
        model.carry_out(steps);
        model
    }

    fn on(&mut self, event: Event) -> Vec<Step> {
        let steps = self.machine.on(event, self.now);
        self.carry_out(steps.clone());
        self.check();
        steps
    }

    fn carry_out(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Launch => {
                    assert!(!self.has_next, "two are being started");
                    self.has_next = true;
                }
                Step::Abort => assert!(self.has_next, "nothing to end"),
                Step::TakeOut => {}
                Step::End | Step::Retire => {
                    assert!(self.has_current, "nothing to end");
                    self.has_current = false;
                }
                Step::GoLive => {
                    assert!(self.has_next && !self.has_current, "who takes the calls?");
                    (self.has_next, self.has_current) = (false, true);
                }
                Step::Tell(News::Crashed(_)) => self.crashes += 1,
                Step::Tell(News::Restarted) => self.restarts += 1,
                Step::Tell(News::GivenUp(_)) => {
                    assert!(!std::mem::replace(&mut self.is_given_up, true));
                }
                Step::Tell(News::Revived) => {
                    assert!(std::mem::take(&mut self.is_given_up), "it was not given up");
                }
                Step::Tell(News::NoProcess(_) | News::DiedBeforeReplaced(_)) => {}
            }
        }
    }

    /// What is true after every event.
    fn check(&self) {
        let machine = &self.machine;
        let is_serving = machine.availability() == Availability::Serving;
        assert_eq!(
            is_serving, self.has_current,
            "callers are misled: {machine:?}"
        );
        if machine.has_ended() {
            assert!(
                !self.has_current && !self.has_next,
                "left behind: {machine:?}"
            );
        } else {
            let waits_for = self.has_current || self.has_next || machine.due().is_some();
            assert!(waits_for || self.is_given_up, "forgotten: {machine:?}");
        }
        assert!(self.restarts <= self.crashes + 1, "{machine:?}");
    }

    /// Does one of the things that can happen now.
    fn act(&mut self, what: u8) {
        let failure = || Failure::from("failed");
        let reason = || "no".to_owned();
        match what % 12 {
            0 | 1 if self.has_next => {
                self.on(Event::Started);
            }
            2 if self.has_next => {
                self.has_next = false;
                self.on(Event::NotStarted(reason()));
            }
            3 if self.has_next => {
                self.has_next = false;
                self.on(Event::NotLaunched(reason()));
            }
            4 | 5 if self.has_current => {
                self.on(Event::Died(failure()));
            }
            6 if self.has_current => {
                self.on(Event::Panicked(failure()));
            }
            7 | 8 => self.wait(),
            9 => {
                self.on(Event::Retry);
            }
            10 => {
                self.on(Event::TearDown);
            }
            11 => {
                self.on(Event::Stop);
            }
            _ => {}
        }
    }

    /// Lets time pass until something is due.
    fn wait(&mut self) {
        if let Some(due) = self.machine.due() {
            self.now = self.now.max(due);
            self.on(Event::Due);
        }
    }
}

proptest! {
    #[test]
    fn every_life_ends_on_request(orders in vec(0_u8..12, 0..60)) {
        let mut model = Model::new();
        for order in orders {
            model.act(order);
        }
        model.on(Event::Stop);
        // What was begun comes back; nothing is begun any more.
        for _ in 0..3 {
            if model.has_next {
                model.has_next = false;
                model.on(Event::NotStarted("ended".to_owned()));
            }
            model.wait();
        }
        prop_assert!(model.machine.has_ended(), "{:?}", model.machine);
    }

    #[test]
    fn crashes_never_start_more_than_the_configuration_allows(crashes in 1_usize..40) {
        let mut model = Model::new();
        model.on(Event::Started);
        for _ in 0..crashes {
            if model.has_current {
                model.on(Event::Died(Failure::from("died")));
                model.wait();
                if model.has_next {
                    model.on(Event::Started);
                }
            }
        }
        let most = RestartConfig::default().most as usize;
        prop_assert_eq!(model.restarts, crashes.min(most));
        prop_assert_eq!(model.is_given_up, crashes > most);
    }
}

fn serving() -> Model {
    let mut model = Model::new();
    assert_eq!(model.on(Event::Started), [Step::GoLive]);
    model
}

fn failure() -> Failure {
    Failure::from("was killed")
}

#[test]
fn a_crash_is_reported_and_replaced_at_once() {
    let mut model = serving();
    let expected = [
        Step::TakeOut,
        Step::End,
        Step::Tell(News::Crashed(failure())),
        Step::Launch,
    ];
    assert_eq!(model.on(Event::Died(failure())), expected);
    assert_eq!(model.machine.availability(), Availability::Starting);
    let expected = [Step::TakeOut, Step::Tell(News::Restarted), Step::GoLive];
    assert_eq!(model.on(Event::Started), expected);
}

#[test]
fn a_panicked_process_answers_until_it_is_replaced() {
    let mut model = serving();
    model.on(Event::Panicked(failure()));
    assert_eq!(model.machine.availability(), Availability::Serving);
    assert_eq!(model.on(Event::Panicked(failure())), []);
    let expected = [
        Step::TakeOut,
        Step::Tell(News::Restarted),
        Step::Retire,
        Step::GoLive,
    ];
    assert_eq!(model.on(Event::Started), expected);
}

#[test]
fn a_replacement_that_fails_counts_as_a_crash() {
    let mut model = serving();
    model.on(Event::Panicked(failure()));
    model.has_next = false;
    let steps = model.on(Event::NotStarted("no".to_owned()));
    let again = Failure::from("was not replaced: no");
    assert_eq!(steps, [Step::Tell(News::Crashed(again))]);
    assert!(model.has_current, "it goes on");
    model.wait();
    assert!(model.has_next);
}

#[test]
fn a_missing_process_is_reported_once_and_retried() {
    let mut model = serving();
    model.on(Event::Died(failure()));
    for attempt in 0..3 {
        model.has_next = false;
        let steps = model.on(Event::NotLaunched("no memory".to_owned()));
        assert_eq!(steps.len(), usize::from(attempt == 0), "{steps:?}");
        assert_eq!(model.machine.waits_for_system(), Some("no memory"));
        assert!(matches!(
            model.machine.availability(),
            Availability::Restarting(_)
        ));
        model.wait();
    }
    model.on(Event::Started);
    assert_eq!(model.crashes, 1, "the plugin is not to blame");
}

#[test]
fn a_plugin_given_up_restarts_on_request() {
    let mut model = serving();
    while !model.is_given_up {
        model.on(Event::Died(failure()));
        model.wait();
        if model.has_next {
            model.on(Event::Started);
        }
    }
    assert_eq!(model.machine.due(), None, "an idle machine does not wake");
    let expected = [Step::Tell(News::Revived), Step::Launch];
    assert_eq!(model.on(Event::Retry), expected);
    model.on(Event::Started);
    assert!(model.has_current);
}

#[test]
fn a_process_in_teardown_has_time_to_exit() {
    let mut model = serving();
    assert_eq!(model.on(Event::TearDown), []);
    assert_eq!(model.on(Event::Stop), []);
    assert_eq!(model.machine.due(), Some(model.now + EXIT));
    assert_eq!(model.on(Event::Died(failure())), [Step::TakeOut, Step::End]);
    assert!(model.machine.has_ended());
    assert_eq!(model.crashes, 0, "it was to end");
}

#[test]
fn a_requested_end_during_replacement_reports_no_crash() {
    for is_starting in [false, true] {
        let mut model = serving();
        if !is_starting {
            model.on(Event::Died(failure()));
            model.on(Event::Started);
        }
        model.on(Event::Panicked(failure()));
        assert_eq!(model.has_next, is_starting, "the second pauses");
        model.on(Event::TearDown);
        assert_eq!(model.on(Event::Died(failure())), [Step::TakeOut, Step::End]);
    }
}

#[test]
fn stopping_ends_a_start_without_a_crash() {
    let mut model = serving();
    model.on(Event::Panicked(failure()));
    assert_eq!(model.on(Event::Stop), [Step::Abort]);
    model.has_next = false;
    let steps = model.on(Event::NotStarted("ended".to_owned()));
    assert_eq!(steps, [Step::TakeOut, Step::End]);
    assert!(model.machine.has_ended());
    assert_eq!(model.crashes, 1, "the panic alone");
}

#[test]
fn nothing_starts_during_a_teardown() {
    let mut model = serving();
    model.on(Event::Died(failure()));
    model.on(Event::Started);
    model.on(Event::Died(failure()));
    assert!(model.machine.due().is_some(), "the second pauses");
    model.on(Event::TearDown);
    assert!(model.machine.has_ended());
}
