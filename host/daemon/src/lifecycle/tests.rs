//! Random lives of a plugin, held against what the state machine promises.
//!
//! A small executor does what the machine asks, answers in any order, late or after the
//! attempt was overtaken, and keeps its own books. Every step is checked against them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use proptest::prelude::*;

use super::*;

/// What the world does next. Numbers choose among what is possible at that moment.
#[derive(Clone, Debug)]
enum Step {
    /// The directory changes.
    Change { retry: bool },
    /// The directory loses the plugin.
    Vanish,
    /// One of the answers that are owed comes in.
    Answer { which: usize, how: Answer },
    /// The clock gives an attempt up that has not answered; its answer may still come.
    GiveUp { lasting: bool },
    /// The clock finds an old version late.
    Late { which: usize },
    /// An answer comes a second time, or for an attempt that is long over.
    Stale { ticket: u64, how: Answer },
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Good { hash: u8 },
    Differs,
    Bad { lasting: bool },
}

/// Something that was set going and has not answered yet.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Owed {
    Verify(Ticket),
    Start(Ticket, Digest),
    Drain(Ticket),
    End(Ticket),
}

#[derive(Default)]
struct World {
    slot: Slot,
    tickets: u64,
    owed: Vec<Owed>,
    /// The version that takes calls, by the executor's own books.
    live: Option<Ticket>,
    started: BTreeSet<Ticket>,
    /// How often each version was ended, drained or not.
    ended: BTreeMap<Ticket, u32>,
    draining: BTreeSet<Ticket>,
    hashes: BTreeMap<Ticket, Digest>,
    reports: BTreeMap<Ticket, u32>,
    /// The attempt that nothing has overtaken: it owes an outcome.
    newest: Option<Ticket>,
    /// What must not be started unasked, and whether somebody asked.
    refused: Option<Digest>,
    asked: bool,
    switches: u64,
}

fn digest(hash: u8) -> Digest {
    static DIGESTS: LazyLock<[Digest; 4]> =
        LazyLock::new(|| [0, 1, 2, 3].map(|n| Digest::of(&[n])));
    DIGESTS[usize::from(hash)]
}

fn refusal(hash: Digest, lasting: bool) -> Refused {
    Refused {
        hash,
        reason: "it is bad".to_owned(),
        lasting,
    }
}

impl World {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Change { retry } => {
                let ticket = Ticket(self.tickets);
                self.tickets += 1;
                self.asked |= retry;
                self.newest = Some(ticket);
                self.apply(Event::Changed {
                    ticket,
                    retry: *retry,
                });
            }
            Step::Vanish => {
                self.asked = false;
                self.newest = None;
                self.refused = None;
                self.apply(Event::Gone);
            }
            Step::Answer { which, how } => {
                if !self.owed.is_empty() {
                    let owed = self.owed.remove(which % self.owed.len());
                    self.answer(owed, *how);
                }
            }
            Step::GiveUp { lasting } => {
                if let Some(ticket) = self.slot.candidate() {
                    let hash = self.hashes.get(&ticket).copied().unwrap_or(digest(0));
                    let refused = refusal(hash, *lasting);
                    self.apply(Event::Failed { ticket, refused });
                }
            }
            Step::Late { which } => {
                let ending: Vec<_> = self.slot.endings().iter().map(|(old, _)| *old).collect();
                if !ending.is_empty() {
                    let ticket = ending[which % ending.len()];
                    self.apply(Event::Late { ticket });
                }
            }
            Step::Stale { ticket, how } => self.stale(Ticket(*ticket), *how),
        }
    }

    /// Only an answer that nobody waits for: the ticket is not the candidate's.
    fn stale(&mut self, ticket: Ticket, how: Answer) {
        if self.slot.candidate() == Some(ticket) || ticket.0 >= self.tickets {
            return;
        }
        let before = self.slot.clone();
        self.apply(match how {
            Answer::Good { hash } => Event::Verified {
                ticket,
                hash: digest(hash),
            },
            Answer::Differs => Event::Differs { ticket },
            Answer::Bad { lasting } => Event::Failed {
                ticket,
                refused: refusal(digest(0), lasting),
            },
        });
        assert_eq!(self.slot, before, "a stale answer changed the slot");
    }

    fn answer(&mut self, owed: Owed, how: Answer) {
        match (owed, how) {
            (Owed::Verify(ticket), Answer::Good { hash }) => {
                self.hashes.insert(ticket, digest(hash));
                let hash = digest(hash);
                self.apply(Event::Verified { ticket, hash });
            }
            (Owed::Verify(ticket), Answer::Differs) => {
                self.apply(Event::Differs { ticket });
            }
            (Owed::Verify(ticket), Answer::Bad { lasting }) => {
                let refused = refusal(digest(0), lasting);
                self.apply(Event::Failed { ticket, refused });
            }
            (Owed::Start(ticket, hash), Answer::Bad { lasting }) => {
                let refused = refusal(hash, lasting);
                self.apply(Event::Failed { ticket, refused });
            }
            (Owed::Start(ticket, _), _) => {
                self.started.insert(ticket);
                self.apply(Event::Started { ticket });
            }
            (Owed::Drain(ticket), _) => self.apply(Event::Drained { ticket }),
            (Owed::End(ticket), _) => self.apply(Event::Ended { ticket }),
        }
    }

    fn apply(&mut self, event: Event) {
        let actions = self.slot.apply(event);
        for action in &actions {
            self.execute(action, &actions);
        }
        self.check();
    }

    fn execute(&mut self, action: &Action, all: &[Action]) {
        match action {
            Action::Verify(ticket) => self.owed.push(Owed::Verify(*ticket)),
            Action::Start(ticket) => {
                let hash = self.hashes[ticket];
                assert!(
                    self.refused != Some(hash) || self.asked,
                    "a refused hash was tried again, and nobody had asked"
                );
                self.owed.push(Owed::Start(*ticket, hash));
            }
            Action::Switch(ticket) => self.switch(*ticket, all),
            Action::Withdraw => {
                let old = self.live.take().expect("something was live");
                assert!(all.contains(&Action::Drain(old)), "nobody drains {old:?}");
            }
            Action::Drain(ticket) => {
                assert_ne!(self.live, Some(*ticket), "drained while it takes calls");
                assert!(self.draining.insert(*ticket), "drained twice");
                self.owed.push(Owed::Drain(*ticket));
            }
            Action::End(ticket) => {
                assert!(
                    self.draining.contains(ticket),
                    "ended before it was drained"
                );
                assert!(
                    !self.owed.contains(&Owed::Drain(*ticket)),
                    "ended under running calls"
                );
                self.end(*ticket);
                self.owed.push(Owed::End(*ticket));
            }
            Action::Discard(ticket) => {
                assert!(self.started.contains(ticket), "nothing to discard");
                assert_ne!(self.live, Some(*ticket), "discarded while it takes calls");
                self.end(*ticket);
            }
            Action::Report(ticket, outcome) => self.report(*ticket, outcome),
        }
    }

    fn switch(&mut self, ticket: Ticket, all: &[Action]) {
        assert!(
            self.started.contains(&ticket),
            "switched to what never started"
        );
        assert!(
            !self.ended.contains_key(&ticket),
            "switched to what has ended"
        );
        if let Some(old) = self.live.replace(ticket) {
            assert!(all.contains(&Action::Drain(old)), "nobody drains {old:?}");
        }
        self.switches += 1;
        let live = self.slot.live().expect("something is live");
        assert_eq!(live.ticket, ticket);
        assert_eq!(live.hash, self.hashes[&ticket]);
        assert_eq!(live.generation, self.switches, "generations count switches");
    }

    fn end(&mut self, ticket: Ticket) {
        let times = self.ended.entry(ticket).or_default();
        *times += 1;
        assert_eq!(*times, 1, "{ticket:?} was ended twice");
    }

    fn report(&mut self, ticket: Ticket, outcome: &Outcome) {
        if !matches!(outcome, Outcome::Removed(_)) {
            *self.reports.entry(ticket).or_default() += 1;
            assert_eq!(self.reports[&ticket], 1, "{ticket:?} had two outcomes");
            self.asked = false;
        }
        self.refused = match outcome {
            Outcome::Refused(refused) => refused.lasting.then_some(refused.hash),
            _ => None,
        };
    }

    /// What holds after every single event.
    fn check(&self) {
        assert_eq!(self.slot.live().map(|live| live.ticket), self.live);
        let ending: Vec<_> = self.slot.endings().iter().map(|(old, _)| *old).collect();
        for ticket in &self.started {
            let kept = self.live == Some(*ticket) || ending.contains(ticket);
            assert!(
                kept || self.ended.contains_key(ticket),
                "{ticket:?} runs and nobody knows it"
            );
        }
        assert!(!ending.iter().any(|old| self.live == Some(*old)));
        match self.slot.state() {
            State::Idle => assert!(self.slot.is_empty()),
            State::Detecting | State::Reloading => assert!(self.slot.is_busy()),
            State::Active => assert!(self.live.is_some() && !self.slot.is_busy()),
            State::Unloading => assert!(self.live.is_none() && !ending.is_empty()),
            State::Error => assert!(self.live.is_none() && self.slot.refused().is_some()),
        }
    }

    /// Lets everything that is owed be answered, until nothing is under way.
    fn finish(&mut self) {
        while let Some(owed) = self.owed.pop() {
            self.answer(owed, Answer::Good { hash: 0 });
        }
        // Only what waits for its file and meta to agree is still there.
        if self.slot.is_busy() {
            assert!(self.slot.is_settling(), "an attempt got stuck");
            self.step(&Step::GiveUp { lasting: false });
        }
        assert!(!self.slot.is_busy());
        if let Some(newest) = self.newest {
            assert_eq!(
                self.reports.get(&newest),
                Some(&1),
                "an attempt came to nothing"
            );
        }
    }
}

impl From<u32> for Answer {
    fn from(word: u32) -> Self {
        match word % 10 {
            0..6 => Self::Good {
                hash: (word >> 8) as u8 % 3,
            },
            6 | 7 => Self::Differs,
            _ => Self::Bad {
                lasting: word & 0x100 != 0,
            },
        }
    }
}

/// One number a step: quick to make and to shrink.
impl From<u32> for Step {
    fn from(word: u32) -> Self {
        let rest = word / 28;
        let which = (rest >> 12) as usize;
        match word % 28 {
            0..6 => Self::Change {
                retry: rest.is_multiple_of(5),
            },
            6 => Self::Vanish,
            7 => Self::GiveUp {
                lasting: rest & 1 != 0,
            },
            8 | 9 => Self::Late { which },
            10 | 11 => Self::Stale {
                ticket: u64::from(rest >> 12) % 40,
                how: rest.into(),
            },
            _ => Self::Answer {
                which,
                how: rest.into(),
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn no_order_of_events_breaks_a_promise(words in prop::collection::vec(any::<u32>(), 1..120)) {
        let mut world = World::default();
        for word in words {
            world.step(&word.into());
        }
        world.finish();
        world.step(&Step::Vanish);
        world.finish();
        prop_assert!(world.slot.is_empty(), "something is left: {:?}", world.slot);
        for ticket in &world.started {
            prop_assert_eq!(world.ended.get(ticket), Some(&1), "{:?} was not ended", ticket);
        }
    }
}

/// Applies events of one attempt up to the switch.
fn bring_up(slot: &mut Slot, ticket: u64, hash: u8) {
    let ticket = Ticket(ticket);
    let hash = digest(hash);
    for event in [
        Event::Changed {
            ticket,
            retry: false,
        },
        Event::Verified { ticket, hash },
        Event::Started { ticket },
    ] {
        drop(slot.apply(event));
    }
}

#[test]
fn a_new_version_is_switched_to_before_the_old_one_drains() {
    let mut slot = Slot::default();
    bring_up(&mut slot, 0, 1);
    let (ticket, hash) = (Ticket(1), digest(2));
    let retry = false;
    assert_eq!(slot.state(), State::Active);
    let verify = slot.apply(Event::Changed { ticket, retry });
    assert_eq!(verify, [Action::Verify(ticket)]);
    assert_eq!(slot.state(), State::Detecting);
    assert_eq!(
        slot.apply(Event::Verified { ticket, hash }),
        [Action::Start(ticket)]
    );
    assert_eq!(slot.state(), State::Reloading);
    assert_eq!(
        slot.apply(Event::Started { ticket }),
        [
            Action::Switch(ticket),
            Action::Drain(Ticket(0)),
            Action::Report(ticket, Outcome::Reloaded(digest(1))),
        ]
    );
    assert_eq!(slot.live().unwrap().generation, 2);
    assert_eq!(slot.endings(), [(Ticket(0), Ending::Draining)]);
}

#[test]
fn the_same_hash_is_not_loaded_again() {
    let mut slot = Slot::default();
    bring_up(&mut slot, 0, 1);
    let ticket = Ticket(1);
    let retry = true;
    drop(slot.apply(Event::Changed { ticket, retry }));
    let hash = digest(1);
    assert_eq!(
        slot.apply(Event::Verified { ticket, hash }),
        [Action::Report(ticket, Outcome::Unchanged)]
    );
    assert_eq!(slot.live().unwrap().generation, 1);
}

#[test]
fn a_refused_hash_waits_until_somebody_asks() {
    let mut slot = Slot::default();
    bring_up(&mut slot, 0, 1);
    let refused = refusal(digest(2), true);
    let try_again = |slot: &mut Slot, ticket, retry| {
        let ticket = Ticket(ticket);
        drop(slot.apply(Event::Changed { ticket, retry }));
        let hash = digest(2);
        slot.apply(Event::Verified { ticket, hash })
    };
    assert_eq!(try_again(&mut slot, 1, false), [Action::Start(Ticket(1))]);
    drop(slot.apply(Event::Failed {
        ticket: Ticket(1),
        refused: refused.clone(),
    }));
    assert_eq!(
        try_again(&mut slot, 2, false),
        [Action::Report(Ticket(2), Outcome::Refused(refused))]
    );
    assert_eq!(
        slot.live().unwrap().ticket,
        Ticket(0),
        "what ran still runs"
    );
    assert_eq!(try_again(&mut slot, 3, true), [Action::Start(Ticket(3))]);
}

#[test]
fn an_overtaken_candidate_is_discarded_when_it_has_started() {
    let mut slot = Slot::default();
    let retry = false;
    for ticket in [Ticket(0), Ticket(1)] {
        drop(slot.apply(Event::Changed { ticket, retry }));
        drop(slot.apply(Event::Verified {
            ticket,
            hash: digest(1),
        }));
    }
    assert_eq!(
        slot.apply(Event::Started { ticket: Ticket(0) }),
        [Action::Discard(Ticket(0))]
    );
    assert_eq!(slot.candidate(), Some(Ticket(1)));
}

#[test]
fn a_plugin_that_vanishes_is_withdrawn_and_ends_after_its_last_call() {
    let mut slot = Slot::default();
    bring_up(&mut slot, 0, 1);
    let ticket = Ticket(0);
    assert_eq!(
        slot.apply(Event::Gone),
        [
            Action::Withdraw,
            Action::Drain(ticket),
            Action::Report(ticket, Outcome::Removed(digest(1))),
        ]
    );
    assert_eq!(slot.state(), State::Unloading);
    assert!(slot.apply(Event::Late { ticket }).is_empty());
    assert_eq!(slot.endings(), [(ticket, Ending::Overdue)]);
    assert_eq!(slot.apply(Event::Drained { ticket }), [Action::End(ticket)]);
    assert_eq!(slot.endings(), [(ticket, Ending::TearingDown)]);
    assert!(slot.apply(Event::Late { ticket }).is_empty());
    assert_eq!(slot.endings(), [(ticket, Ending::Stuck)]);
    assert!(slot.apply(Event::Ended { ticket }).is_empty());
    assert!(slot.is_empty());
    assert_eq!(slot.state(), State::Idle);
}
