//! A host that is only a model: it carries out each action when the test says so, well or
//! badly. After every step it checks what the life cycle promises.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use hotmerge_meta::{Digest, PluginMeta, PluginName};

use super::*;

/// The actions that the model has not carried out yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Verify,
    Settle,
    Start,
    HandOver,
    Try,
    Drain,
    End,
}

/// Where a version is that has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Ready,
    Trying,
    Live,
    Old,
    Ended,
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) machine: Machine,
    jobs: VecDeque<(PluginName, Ticket, Job)>,
    targets: BTreeMap<Ticket, Target>,
    pub(super) started: BTreeMap<Ticket, (PluginName, Place)>,
    pub(super) paused: BTreeSet<PluginName>,
    pub(super) calls: Calls,
    pub(super) directory: BTreeMap<PluginName, Arc<PluginMeta>>,
    /// Refused for good, with nothing since that would excuse another try.
    refused: BTreeMap<PluginName, Digest>,
    /// Live versions that are to be replaced, and of which no replacement was refused.
    crashed: BTreeSet<Ticket>,
    pub(super) stopping: bool,
    circles: bool,
}

impl Model {
    pub(super) fn carry_out(&mut self, steps: Vec<Step>) {
        for Step { plugin, action } in steps {
            self.step(plugin, action);
        }
        self.let_calls_go_on();
        self.check();
    }

    fn step(&mut self, plugin: PluginName, action: Action) {
        match action {
            Action::Now(now) => self.do_now(plugin, now),
            Action::Later(later) => self.do_later(plugin, later),
        }
    }

    fn do_later(&mut self, plugin: PluginName, later: Later) {
        match later {
            Later::Verify(ticket) => {
                assert!(self.targets.contains_key(&ticket), "it has not begun");
                self.jobs.push_back((plugin, ticket, Job::Verify));
            }
            Later::Start(ticket) => {
                self.check_start(&plugin, ticket);
                self.jobs.push_back((plugin, ticket, Job::Start));
            }
            Later::HandOver(ticket) => {
                assert_eq!(self.place(ticket), Place::Ready);
                assert!(self.live(&plugin).is_some(), "nobody to take over from");
                assert!(self.paused.insert(plugin.clone()), "paused twice");
                self.jobs.push_back((plugin, ticket, Job::HandOver));
            }
            Later::Drain(ticket) => {
                assert_eq!(self.place(ticket), Place::Old, "it takes calls");
                self.jobs.push_back((plugin, ticket, Job::Drain));
            }
            Later::End(ticket) => {
                assert_eq!(self.place(ticket), Place::Old);
                assert!(!self.calls.run_on(ticket), "ended under a call");
                self.jobs.push_back((plugin, ticket, Job::End));
            }
            Later::Discard(ticket) => self.move_to(ticket, Place::Ready, Place::Ended),
            Later::BreakOff(ticket) => {
                let place = self.started.get(&ticket).map(|(_, place)| *place);
                let takes_no_calls = matches!(place, None | Some(Place::Ready | Place::Ended));
                assert!(takes_no_calls, "{place:?} is broken off");
            }
            Later::Persist => {}
        }
    }

    fn do_now(&mut self, plugin: PluginName, now: Now) {
        match now {
            Now::Begin(ticket, target) => {
                assert!(
                    self.targets.insert(ticket, target).is_none(),
                    "a ticket used twice"
                );
            }
            Now::Resume => assert!(self.paused.remove(&plugin), "nothing to resume"),
            Now::BeginTrial(ticket) => {
                assert!(self.live(&plugin).is_some(), "nobody to share with");
                self.move_to(ticket, Place::Ready, Place::Trying);
                self.jobs.push_back((plugin, ticket, Job::Try));
            }
            Now::EndTrial(ticket) => self.move_to(ticket, Place::Trying, Place::Old),
            Now::Switch(ticket) => self.switch(&plugin, ticket),
            Now::Withdraw => self.withdraw(&plugin),
            Now::Forget(ticket) => {
                assert!(
                    !self.started.contains_key(&ticket),
                    "forgotten while it runs"
                );
                self.targets.remove(&ticket).expect("it was known");
                self.jobs.retain(|(_, other, _)| *other != ticket);
            }
            Now::Report(ticket, Outcome::Refused(refused)) => {
                assert!(
                    self.targets.contains_key(&ticket),
                    "an event about a forgotten plugin"
                );
                if matches!(self.targets[&ticket].origin, Origin::Running(_))
                    && let Some(live) = self.live(&plugin)
                {
                    self.crashed.remove(&live);
                }
                // What a choice stands against was not tried.
                let tried = self.machine.slot(plugin.as_str()).and_then(Slot::refused);
                // A plugin that has gone meanwhile and comes back may be tried again.
                let is_there = self.directory.contains_key(&plugin);
                if refused.lasting && tried == Some(&refused) && is_there {
                    self.refused.insert(plugin, refused.meta.hash);
                } else {
                    self.refused.remove(&plugin);
                }
            }
            Now::Note(Note::Plugin { from, to, .. }) => assert_ne!(from, to),
            Now::Note(Note::Old { from, to, .. }) => assert_ne!(from, to),
            Now::Note(Note::Crash { .. }) => {
                assert!(self.live(&plugin).is_some(), "nothing there to crash");
            }
            Now::Report(_, Outcome::Unchanged) => drop(self.refused.remove(&plugin)),
            Now::Report(..) => {}
        }
    }

    fn check_start(&self, plugin: &PluginName, ticket: Ticket) {
        let meta = &self.targets[&ticket].meta;
        for required in &meta.requires {
            let live = self
                .live(&required.name)
                .expect("started before what it requires");
            let version = &self.targets[&live].meta.version;
            assert!(
                required.version.matches(version),
                "started with another version"
            );
        }
        let candidate = self
            .machine
            .slot(plugin.as_str())
            .and_then(|slot| slot.candidate.as_ref());
        if candidate.is_some_and(|it| it.ticket == ticket && it.attempt.why == Why::Changed) {
            assert_ne!(
                self.refused.get(plugin),
                Some(&meta.hash),
                "tried again without a request"
            );
        }
    }

    fn switch(&mut self, plugin: &PluginName, ticket: Ticket) {
        let place = self.place(ticket);
        assert!(
            matches!(place, Place::Ready | Place::Trying),
            "{place:?} goes live"
        );
        if let Some(old) = self.live(plugin) {
            self.move_to(old, Place::Live, Place::Old);
        }
        self.move_to(ticket, place, Place::Live);
        self.paused.remove(plugin);
        self.refused.remove(plugin);
    }

    fn withdraw(&mut self, plugin: &PluginName) {
        assert!(
            !self.paused.contains(plugin),
            "withdrawn under waiting calls"
        );
        let live = self.live(plugin).expect("nothing to withdraw");
        let lost = |name: &PluginName| !self.directory.contains_key(name);
        let excused = |ticket| {
            let requires = &self.targets[&ticket].meta.requires;
            requires
                .iter()
                .any(|it| lost(&it.name) || self.live(&it.name).is_none())
                || requires.iter().any(|it| self.is_leaving(&it.name, PLUGINS))
        };
        assert!(
            self.stopping || lost(plugin) || excused(live),
            "withdrawn without need"
        );
        if !self.circles {
            let holds = |(ticket, (_, place)): (&Ticket, &(PluginName, Place))| {
                let requires = &self.targets[ticket].meta.requires;
                *place == Place::Live && requires.iter().any(|it| it.name == *plugin)
            };
            assert!(
                !self.started.iter().any(holds),
                "withdrawn before a dependant"
            );
        }
        self.move_to(live, Place::Live, Place::Old);
    }

    fn is_leaving(&self, name: &PluginName, depth: usize) -> bool {
        let requires = |ticket| &self.targets[&ticket].meta.requires;
        !self.directory.contains_key(name)
            || depth > 0
                && self.live(name).is_some_and(|live| {
                    requires(live)
                        .iter()
                        .any(|it| self.is_leaving(&it.name, depth - 1))
                })
    }

    pub(super) fn place(&self, ticket: Ticket) -> Place {
        self.started.get(&ticket).expect("it has started").1
    }

    fn move_to(&mut self, ticket: Ticket, from: Place, to: Place) {
        let place = &mut self.started.get_mut(&ticket).expect("it has started").1;
        assert_eq!(*place, from);
        *place = to;
        let is_over = to == Place::Ended;
        assert!(!(is_over && self.calls.run_on(ticket)), "gone under a call");
    }

    fn live(&self, plugin: &PluginName) -> Option<Ticket> {
        self.at(plugin, Place::Live)
    }

    /// The one version of a plugin that takes calls in this way.
    pub(super) fn at(&self, plugin: &PluginName, place: Place) -> Option<Ticket> {
        let is_it = |(name, at): &(PluginName, Place)| name == plugin && *at == place;
        let mut all = self.started.iter().filter(|(_, it)| is_it(it));
        let ticket = all.next().map(|(ticket, _)| *ticket);
        assert!(all.next().is_none(), "two versions are {place:?}");
        ticket
    }

    /// What holds at every moment.
    fn check(&self) {
        for name in NAMES.iter() {
            let slot = self.machine.slot(name.as_str());
            let live = slot.and_then(Slot::live).map(|live| live.ticket);
            assert_eq!(live, self.live(name), "machine and host disagree");
            let hands_over = slot.and_then(Slot::stage) == Some(Stage::HandingOver);
            assert_eq!(
                hands_over,
                self.paused.contains(name),
                "calls wait without end"
            );
        }
        for name in NAMES.iter() {
            self.at(name, Place::Trying);
        }
        let paused: BTreeSet<_> = self.paused.iter().collect();
        assert!(
            self.calls.wait_for().is_subset(&paused),
            "calls wait for nothing"
        );
    }

    /// Does one of the jobs, well or badly.
    fn work(&mut self, which: usize, how: u8) {
        if self.jobs.is_empty() {
            return;
        }
        let index = which % self.jobs.len();
        let (plugin, ticket, job) = self.jobs[index].clone();
        // A version under a call does not drain, and its time may pass.
        let is_called = self.calls.run_on(ticket);
        let is_late =
            how % 16 == 15 && job == Job::End || job == Job::Drain && (is_called || how % 16 == 15);
        // State does not change hands under a call.
        let live = self.live(&plugin);
        let is_busy = live.is_some_and(|live| self.calls.run_on(live));
        if !is_late {
            self.jobs.remove(index);
        }
        let event = match (job, how % 8) {
            _ if is_late => Event::Late { ticket },
            (Job::Verify | Job::Settle, 0) => {
                self.jobs.push_back((plugin.clone(), ticket, Job::Settle));
                Event::Differs { ticket }
            }
            (Job::Verify, 1) | (Job::Settle, _) => self.failure(ticket, false),
            (Job::Verify, _) => Event::Verified { ticket },
            (Job::Start, 0 | 1) => self.failure(ticket, true),
            (Job::Start, how) => {
                let place = (plugin.clone(), Place::Ready);
                assert!(
                    self.started.insert(ticket, place).is_none(),
                    "started twice"
                );
                let next = match how {
                    2 | 3 => Next::HandOver,
                    4 => Next::Try,
                    _ => Next::Switch,
                };
                Event::Started { ticket, next }
            }
            // A host whose candidate cannot take over, or is no good, ends it by itself.
            (Job::HandOver, how) if how < 2 || is_busy => {
                self.move_to(ticket, Place::Ready, Place::Ended);
                match (how, self.failure(ticket, true)) {
                    (1, Event::Failed { ticket, refused }) => {
                        Event::NotHandedOver { ticket, refused }
                    }
                    (_, failed) => failed,
                }
            }
            (Job::HandOver, _) => Event::HandedOver { ticket },
            (Job::Try, 0 | 1) => self.failure(ticket, true),
            (Job::Try, _) => Event::Proven { ticket, calls: 1 },
            (Job::Drain, _) => Event::Drained { ticket },
            (Job::End, _) => {
                self.move_to(ticket, Place::Old, Place::Ended);
                Event::Ended { ticket }
            }
        };
        let steps = self.machine.apply(&plugin, event);
        self.carry_out(steps);
    }

    fn failure(&self, ticket: Ticket, lasting: bool) -> Event {
        Event::Failed {
            ticket,
            refused: Refused {
                meta: Arc::clone(&self.targets[&ticket].meta),
                reason: "no good".to_owned(),
                lasting,
            },
        }
    }

    fn stage(&mut self, plugin: usize, kind: usize, asked: bool) {
        let meta = &METAS[plugin][kind];
        self.circles |= kind == KINDS - 1;
        self.directory.insert(meta.name.clone(), Arc::clone(meta));
        let why = match (asked, kind % 2) {
            (false, _) => Why::Changed,
            (true, 0) => Why::Asked,
            (true, _) => Why::AskedWithoutState,
        };
        let steps = self.machine.scanned(vec![(staged(meta), why)], &[]);
        self.carry_out(steps);
    }

    fn unstage(&mut self, plugin: usize) {
        let name = &NAMES[plugin];
        self.refused.remove(name);
        if self.directory.remove(name).is_some() {
            let steps = self.machine.scanned(Vec::new(), std::slice::from_ref(name));
            self.carry_out(steps);
        }
    }

    fn choose(&mut self, plugin: usize, how: u8) {
        let name = &NAMES[plugin];
        let steps = match how % 4 {
            0 => self.machine.pin(name),
            1 => self.machine.unpin(name),
            _ => {
                let kind = usize::from(how) % (KINDS - 1);
                self.machine.roll_back(
                    name,
                    Arc::clone(&METAS[plugin][kind]),
                    !how.is_multiple_of(3),
                )
            }
        };
        if let Ok(steps) = steps {
            self.carry_out(steps);
        }
    }

    /// Something happens to a version that may be the live one.
    fn crash(&mut self, plugin: usize, how: u8) {
        let name = NAMES[plugin].clone();
        let live = self.live(&name);
        let ticket = match how % 8 {
            7 => Ticket(u64::from(how)),
            _ => live.unwrap_or(Ticket(0)),
        };
        let is_live = live == Some(ticket);
        let what = "it crashed".to_owned();
        let event = match how % 8 {
            0 | 7 => Event::Crashed { ticket, what },
            1 => Event::Revived { ticket },
            2 => {
                self.crashed.remove(&ticket);
                let reason = what;
                Event::GivenUp { ticket, reason }
            }
            _ => {
                if is_live {
                    self.crashed.insert(ticket);
                }
                Event::Replace { ticket }
            }
        };
        let is_given_up = matches!(event, Event::GivenUp { .. });
        let steps = self.machine.apply(&name, event);
        self.carry_out(steps);
        if is_given_up && is_live {
            let slot = self.machine.slot(name.as_str()).expect("it is live");
            assert!(slot.stage().is_some() || slot.state() == PluginState::Error);
        }
    }

    fn reconfigure(&mut self, plugin: usize, how: u8) {
        let what = Reconfigured {
            live: how & 1 != 0,
            candidate: how & 2 != 0,
            changed: how & 4 == 0,
        };
        if what.changed {
            // The settings may have been the cause.
            self.refused.remove(&NAMES[plugin]);
        }
        let steps = self.machine.reconfigured(&[(NAMES[plugin].clone(), what)]);
        self.carry_out(steps);
    }

    pub(super) fn act(&mut self, what: u8, how: u8) {
        let plugin = usize::from(how) % PLUGINS;
        match what % 16 {
            0..=3 => self.stage(plugin, usize::from(how / 4) % KINDS, what & 16 != 0),
            4 => self.unstage(plugin),
            5 => self.choose(plugin, how / 4),
            6 => self.crash(plugin, how / 4),
            7 => self.reconfigure(plugin, how / 4),
            14 => self.begin_call(&NAMES[plugin], how & 128 != 0),
            15 => self.end_call(how.into()),
            _ => self.work(usize::from(what / 16), how),
        }
    }

    /// Does everything that is left to do, well.
    pub(super) fn come_to_rest(&mut self) {
        for _ in 0..1_000 {
            self.end_calls();
            if self.jobs.is_empty() {
                return;
            }
            self.work(0, 7);
        }
        panic!("it never comes to rest: {:?}", self.jobs);
    }

    /// What holds when nothing is under way.
    pub(super) fn check_at_rest(&self) {
        assert!(self.paused.is_empty(), "calls wait for nothing");
        assert!(self.calls.are_none(), "a call never ends");
        for (name, slot) in self.machine.slots() {
            assert!(!slot.is_busy(), "`{name}` starves: {slot:?}");
            assert!(slot.retiring().is_empty());
        }
        for (ticket, (name, place)) in &self.started {
            let is_live = self.live(name) == Some(*ticket);
            assert!(
                !(is_live && self.crashed.contains(ticket)),
                "`{name}` crashed, and nobody cares"
            );
            assert_eq!(*place, if is_live { Place::Live } else { Place::Ended });
        }
        for (name, meta) in &self.directory {
            let slot = self
                .machine
                .slot(name.as_str())
                .expect("it is in the directory");
            let stands = |choice: &Choice| choice.stands_against(&meta.hash);
            let excused = slot.refused().is_some() || slot.choice().is_some_and(stands);
            let live = slot.live().map(|live| live.meta.hash);
            assert!(
                excused || live == Some(meta.hash),
                "`{name}` was forgotten: {slot:?}"
            );
        }
    }
}
