//! Holds the state machine and carries out what it decides.
//!
//! One lock covers the machine. Steps that cannot wait or fail (switch, withdraw, report)
//! are done under it, so that their order is the machine's; all others are handed to
//! threads, which come back with the next event.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hotmerge_meta::{PluginMeta, PluginName, control::Problem};
use hotmerge_swap::Draining;

use crate::{
    Config, Plugin,
    attempt::Attempt,
    cell::Cells,
    clock::Clock,
    deadlines::LOOK_AGAIN,
    health::Health,
    history::History,
    jobs::{Job, Jobs},
    lifecycle::{Action, Event, Machine, Origin, Outcome, Slot, Stage, Step, Target, Ticket, set},
    plugin::Version,
    scan::{Findings, Found, Scanner},
    store::Store,
    threads::Background,
};

/// How soon the clock looks for a plugin directory that is not there.
const LOOK_FOR_DIR: Duration = Duration::from_secs(1);

pub(crate) struct Supervisor {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) jobs: Jobs,
    pub(crate) background: Background,
    pub(crate) counters: Counters,
    pub(crate) plugin_dir: PathBuf,
    pub(crate) cells: Arc<Cells>,
    /// Where the last good versions are; a host without one cannot go back.
    pub(crate) store: Option<Store>,
    scanner: Mutex<Scanner>,
    pub(crate) plugins: RwLock<BTreeMap<PluginName, Arc<Plugin>>>,
    state: Mutex<State>,
    settled: Condvar,
}

/// What an operator should be able to see counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rescans: AtomicU64,
    pub(crate) retained: AtomicU64,
    pub(crate) stuck: AtomicU64,
    pub(crate) overdue: AtomicU64,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) machine: Machine,
    pub(crate) attempts: HashMap<Ticket, Attempt>,
    pub(crate) history: History,
    pub(crate) health: HashMap<PluginName, Health>,
    pub(crate) problems: Vec<Problem>,
    /// Plugins with a candidate.
    pub(crate) active: BTreeSet<PluginName>,
    /// Those of them that will soon come to an end by themselves.
    busy: BTreeSet<PluginName>,
    /// Records of the store that are still to be written.
    keeping: usize,
    /// Candidates whose file and meta differ: since when, and how.
    pub(crate) differing: HashMap<PluginName, (Instant, String)>,
    /// Whether the last pass found something that has not settled.
    unsettled: bool,
    pub(crate) stopping: bool,
}

impl Supervisor {
    pub(crate) fn new(config: Config, plugin_dir: PathBuf, store: Option<Store>) -> Self {
        let scanner = Scanner::new(plugin_dir.clone(), config.settle());
        let mut state = State::default();
        for (name, last_good, choice) in store.iter().flat_map(Store::remembered) {
            state.machine.remember(name, last_good, choice);
        }
        Self {
            plugin_dir,
            cells: Cells::new(config.clone()),
            config,
            clock: Clock::default(),
            jobs: Jobs::new(),
            background: Background::default(),
            counters: Counters::default(),
            store,
            scanner: Mutex::new(scanner),
            plugins: RwLock::default(),
            state: Mutex::new(state),
            settled: Condvar::new(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn plugin(&self, name: &str) -> Option<Arc<Plugin>> {
        self.plugins
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// The handle of a plugin, made now if need be.
    fn handle(&self, name: &PluginName) -> Arc<Plugin> {
        let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Plugin::new(name.clone()));
        Arc::clone(plugins.entry(name.clone()).or_insert_with(new))
    }

    /// Looks at the directory and sets going whatever follows. `retry` names plugins whose
    /// refused versions are to be tried again; those of them that had been given up are started
    /// again, and returned.
    pub(crate) fn rescan(self: &Arc<Self>, retry: &[PluginName]) -> Vec<PluginName> {
        let mut scanner = self.scanner.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state().stopping {
            return Vec::new();
        }
        self.counters.rescans.fetch_add(1, Ordering::Relaxed);
        let revived = self.revive(retry);
        let findings = scanner.scan(Instant::now());
        let again: Vec<_> = retry
            .iter()
            .filter(|name| self.is_refused(name))
            .filter_map(|name| scanner.find(name.as_str()))
            .collect();
        // The scanner stays locked until the findings are applied: two passes at once must
        // not be applied in the wrong order.
        self.take(findings, again);
        revived
    }

    fn is_refused(&self, name: &PluginName) -> bool {
        let state = self.state();
        let slot = state.machine.slot(name.as_str());
        slot.is_some_and(|slot| slot.refused().is_some())
    }

    fn take(self: &Arc<Self>, findings: Findings, again: Vec<Found>) {
        if let Some(next) = findings.next_look {
            self.clock.wake_at(next);
        }
        // A plugin directory that is not there cannot be watched.
        if findings
            .problems
            .iter()
            .any(|problem| problem.package.is_empty())
        {
            self.clock.wake_at(Instant::now() + LOOK_FOR_DIR);
        }
        self.take_problems(findings.problems, findings.next_look.is_some());
        // What somebody asks for is tried even if it only seems to have changed.
        let is_asked = |found: &Found| again.iter().any(|it| it.meta.name == found.meta.name);
        let mut changed = findings.changed;
        changed.retain(|found| !is_asked(found));
        let asked = again.into_iter().map(|found| (target(found), true));
        let changed = asked.chain(changed.into_iter().map(|found| (target(found), false)));
        let changed: Vec<_> = changed.collect();
        let gone = findings.gone;
        self.drive(|machine| machine.look(changed, &gone));
        self.settled.notify_all();
    }

    fn take_problems(&self, problems: Vec<Problem>, unsettled: bool) {
        let mut state = self.state();
        for problem in problems.iter().filter(|new| !state.problems.contains(new)) {
            tracing::warn!(package = %problem.package, "{}", problem.reason);
        }
        state.problems = problems;
        state.unsettled = unsettled;
    }

    /// Changes the machine and sets going what follows.
    pub(crate) fn drive(self: &Arc<Self>, change: impl FnOnce(&mut Machine) -> Vec<Step>) {
        let later = self.decide(change);
        self.dispatch(later);
    }

    /// Applies one event and sets going what follows.
    pub(crate) fn apply(self: &Arc<Self>, name: &PluginName, event: Event) {
        self.drive(|machine| machine.apply(name, event));
    }

    /// Applies one event and sets going what follows, up to the next step of the attempt
    /// that it is about: that is for the caller to go on with.
    pub(crate) fn advance(self: &Arc<Self>, name: &PluginName, event: Event) -> Option<Action> {
        let ticket = event.ticket();
        let mut later = self.decide(|machine| machine.apply(name, event));
        let mine = [Action::Start(ticket), Action::HandOver(ticket)];
        let index = later.iter().position(|step| mine.contains(&step.action));
        let next = index.map(|index| later.remove(index).action);
        self.dispatch(later);
        next
    }

    /// Changes the machine; returns what is still to be set going.
    fn decide(&self, change: impl FnOnce(&mut Machine) -> Vec<Step>) -> Vec<Step> {
        let mut state = self.state();
        let steps = change(&mut state.machine);
        let touched: BTreeSet<_> = steps.iter().map(|step| step.plugin.clone()).collect();
        let mut later = Vec::new();
        for Step { plugin, action } in steps {
            if let Some(action) = self.do_now(&mut state, &plugin, action) {
                later.push(Step { plugin, action });
            }
        }
        for name in touched {
            self.tidy(&mut state, &name);
        }
        drop(state);
        self.settled.notify_all();
        later
    }

    /// Does what cannot wait or fail; hands back the rest.
    fn do_now(&self, state: &mut State, name: &PluginName, action: Action) -> Option<Action> {
        match action {
            Action::Switch(ticket) => self.switch(state, name, ticket),
            Action::Withdraw => {
                let old = self.handle(name).live.swap(None);
                state.set_draining(old);
            }
            Action::Resume => self.handle(name).resume(),
            Action::Try(ticket) => self.try_out(state, name, ticket),
            Action::Untry(_) => {
                let tried = self.handle(name).end_canary();
                state.set_draining(tried);
            }
            Action::Forget(ticket) => drop(state.attempts.remove(&ticket)),
            Action::Report(ticket, outcome) => {
                let origin = state.attempts.get(&ticket).map(|it| &it.target.origin);
                if matches!(outcome, Outcome::Refused(_))
                    && matches!(origin, Some(Origin::Running(_)))
                {
                    self.not_replaced(name);
                }
                state.report(name, ticket, outcome);
            }
            Action::Note(note) => state.history.note(name, note),
            Action::Verify(ticket, target) => {
                state.attempts.insert(ticket, Attempt::new(target.clone()));
                return Some(Action::Verify(ticket, target));
            }
            Action::Keep | Action::Unkeep => {
                state.keeping += usize::from(self.store.is_some());
                return Some(action);
            }
            later => return Some(later),
        }
        None
    }

    fn switch(&self, state: &mut State, name: &PluginName, ticket: Ticket) {
        let plugin = self.handle(name);
        let attempt = state.attempts.get(&ticket);
        if attempt.is_some_and(|it| matches!(it.target.origin, Origin::Running(_))) {
            state.health(name).restarts += 1;
        }
        let old = match state.ready_version(name, ticket) {
            Some(version) => plugin.live.swap(Some(version)),
            // It has taken its share of the calls already, and may be doing so.
            None => plugin
                .end_canary()
                .and_then(|tried| plugin.live.put_back(tried)),
        };
        // While state changed hands, the old version was set aside.
        state.set_draining(old.or_else(|| plugin.handing.swap(None)));
    }

    fn try_out(&self, state: &mut State, name: &PluginName, ticket: Ticket) {
        if let Some(version) = state.ready_version(name, ticket)
            && let Some(canary) = self.config.canary(name)
        {
            self.handle(name).begin_canary(version, canary.share);
            let until = Instant::now() + canary.duration();
            if let Some(attempt) = state.attempts.get_mut(&ticket) {
                attempt.trying = Some(until);
            }
            // The clock judges it from time to time, and asks for the next time itself.
            self.clock.wake_at(until.min(Instant::now() + LOOK_AGAIN));
        }
    }

    /// Forgets what nothing refers to any more.
    fn tidy(&self, state: &mut State, name: &PluginName) {
        let slot = state.machine.slot(name.as_str());
        let (active, busy) = slot.map_or((false, false), |slot| {
            (slot.candidate().is_some(), slot.is_busy())
        });
        let known = slot.is_some();
        set(&mut state.active, name, active);
        set(&mut state.busy, name, busy);
        if !busy {
            state.differing.remove(name);
        }
        if !known {
            state.health.remove(name);
            let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
            // A handle that somebody holds is good for the plugin when it comes back.
            if plugins
                .get(name)
                .is_some_and(|plugin| Arc::strong_count(plugin) == 1)
            {
                plugins.remove(name);
            }
        }
    }

    fn dispatch(self: &Arc<Self>, steps: Vec<Step>) {
        for Step { plugin, action } in steps {
            match action {
                Action::Verify(ticket, _) | Action::Start(ticket) => {
                    self.submit(&plugin, Job::BringUp(ticket));
                }
                Action::Drain(ticket) => self.end_in_background(&plugin, ticket),
                Action::Discard(ticket) => self.discard_in_background(&plugin, ticket),
                Action::Keep | Action::Unkeep if self.store.is_some() => {
                    self.submit(&plugin, Job::Keep(plugin.clone()));
                }
                // `HandOver` goes on where `Start` has run, `End` where `Drain` has; the
                // rest is done under the lock.
                _ => {}
            }
        }
    }

    /// One record of the store was written.
    pub(crate) fn kept(&self) {
        let mut state = self.state();
        state.keeping -= 1;
        drop(state);
        self.settled.notify_all();
    }

    /// Waits until no attempt is under way, nothing is unsettled, and the store knows all.
    pub(crate) fn wait_settled(&self) -> MutexGuard<'_, State> {
        self.wait_while(|state| !state.busy.is_empty() || state.keeping > 0 || state.unsettled)
    }

    /// Waits until no attempt for one of these is under way and nothing is unsettled.
    pub(crate) fn wait_settled_of(&self, names: &[PluginName]) -> MutexGuard<'_, State> {
        self.wait_while(|state| {
            names.iter().any(|name| state.busy.contains(name)) || state.unsettled
        })
    }

    fn wait_while(&self, is_busy: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.state();
        while !state.stopping && is_busy(&state) {
            state = self
                .settled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Takes every plugin out of service and waits until the old versions have ended, or
    /// until their time is over. Returns how many have not.
    pub(crate) fn stop(self: &Arc<Self>) -> usize {
        self.state().stopping = true;
        self.drive(Machine::stop);
        let deadline = Instant::now() + self.config.longest_end();
        let mut state = self.state();
        loop {
            let left = state.running() + state.keeping;
            let now = Instant::now();
            if left == 0 || now >= deadline {
                return left;
            }
            state = self
                .settled
                .wait_timeout(state, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl State {
    /// The plugins of which the last version that was tried was refused.
    pub(crate) fn refused(&self) -> impl Iterator<Item = &PluginName> {
        self.machine
            .slots()
            .iter()
            .filter(|(_, slot)| slot.refused().is_some())
            .map(|(name, _)| name)
    }

    /// What is known of the version that takes calls.
    pub(crate) fn live_meta(&self, name: &str) -> Option<&Arc<PluginMeta>> {
        Some(&self.machine.slot(name)?.live()?.meta)
    }

    /// The attempt of a candidate, if it still is one.
    pub(crate) fn candidate(&self, name: &PluginName) -> Option<(Ticket, Stage, &Attempt)> {
        let slot = self.machine.slot(name.as_str())?;
        let (ticket, _) = slot.candidate()?;
        Some((ticket, slot.stage()?, self.attempts.get(&ticket)?))
    }

    fn running(&self) -> usize {
        let slots = self.machine.slots().values();
        slots
            .map(|slot| slot.olds().len() + usize::from(slot.live().is_some()))
            .sum()
    }

    /// A started candidate as what takes calls.
    fn ready_version(&mut self, name: &PluginName, ticket: Ticket) -> Option<Box<Version>> {
        let slot = self.machine.slot(name.as_str())?;
        let live = slot.live()?;
        let (meta, generation) = if live.ticket == ticket {
            (Arc::clone(&live.meta), live.generation)
        } else {
            let (_, target) = slot.candidate()?;
            (Arc::clone(&target.meta), live.generation + 1)
        };
        Some(Box::new(Version {
            instance: self.attempts.get_mut(&ticket)?.ready.take()?,
            ticket,
            generation,
            hash: meta.hash,
        }))
    }

    fn set_draining(&mut self, old: Option<Draining<Version>>) {
        if let Some(old) = old
            && let Some(attempt) = self.attempts.get_mut(&old.ticket)
        {
            attempt.draining = Some(old);
        }
    }

    /// Forgets an attempt once nothing refers to it.
    pub(crate) fn forget(&mut self, name: &PluginName, ticket: Ticket) {
        let slot = self.machine.slot(name.as_str());
        if !slot.is_some_and(|slot: &Slot| slot.refers_to(ticket)) {
            self.attempts.remove(&ticket);
        }
    }
}

fn target(found: Found) -> Target {
    Target {
        meta: Arc::new(found.meta),
        origin: Origin::Package(found.package),
        takes_state: true,
    }
}
