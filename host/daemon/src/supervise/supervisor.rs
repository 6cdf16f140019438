//! Holds the state machine and carries out what it decides.
//!
//! One lock covers the machine. Steps that cannot wait or fail (switch, withdraw, report) run under it,
//! in the machine's order; all others are handed to threads, which return with the next event.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use hotmerge_instance::Workers;
use hotmerge_lifecycle::{
    Action, Event, Later, Now, Origin, Outcome, Slot, Step, Target, Ticket, Why, set,
};
use hotmerge_meta::{PluginName, control::Problem};
use jiff::Timestamp;
use tracing::{debug, trace};

use crate::{
    Config,
    find::{
        scan::{Dirty, Findings, Found, Scanner},
        tell::{Hint, Tell},
        watch::Watchers,
    },
    plugin::Plugin,
    record::{
        events::{Happened, HostEvent, PluginEvent},
        store::Store,
    },
    supervise::{
        clock::{Clock, RECHECK},
        jobs::{Job, Jobs},
        state::{Attempt, HostState, Progress},
        threads::{Background, Postponed, Task},
    },
};

/// How often the clock checks for a missing plugin directory.
const LOOK_FOR_DIR: Duration = Duration::from_secs(1);

pub(crate) struct Supervisor {
    config: RwLock<Arc<Config>>,
    /// How many keys wait for a restart of the host; held while the configuration changes.
    pending_config: Mutex<usize>,
    pub(crate) clock: Clock,
    pub(crate) jobs: Jobs,
    pub(crate) background: Background<Self>,
    pub(crate) plugin_dir: PathBuf,
    pub(crate) watchers: Watchers,
    pub(crate) workers: Arc<Workers>,
    /// The last good versions; a host without a store cannot roll back.
    pub(crate) store: Option<Store>,
    scanner: Mutex<Scanner>,
    pub(crate) plugins: RwLock<BTreeMap<PluginName, Arc<Plugin>>>,
    state: Mutex<HostState>,
    settled: Condvar,
}

impl Supervisor {
    pub(crate) fn new(
        config: Config,
        plugin_dir: PathBuf,
        store: Option<Store>,
        hint: Hint,
        tell: Tell,
    ) -> Self {
        let mut scanner =
            Scanner::new(plugin_dir.clone(), config.settle()).trusting(config.trust());
        let mut state = HostState::default();
        state.newest.extend(store.iter().flat_map(Store::newest));
        for last in store.iter().flat_map(Store::remembered) {
            if let (Some(package), Some(live)) = (&last.package, &last.live) {
                scanner.remember(package, (**live).clone());
            }
            state.machine.remember(last.plugin, last.live, last.choice);
        }
        let watchers = Watchers::new(plugin_dir.clone(), config.watch, hint, tell);
        let workers = Workers::new(config.settings());
        state.found_at_start(store.as_ref(), &workers);
        Self {
            plugin_dir,
            watchers,
            workers,
            config: RwLock::new(Arc::new(config)),
            pending_config: Mutex::default(),
            clock: Clock::default(),
            jobs: Jobs::new(),
            background: Background::default(),
            store,
            scanner: Mutex::new(scanner),
            plugins: RwLock::default(),
            state: Mutex::new(state),
            settled: Condvar::new(),
        }
    }

    /// Puts another configuration in force.
    pub(super) fn set_config(&self, config: Arc<Config>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    pub(super) fn pending_config(&self) -> MutexGuard<'_, usize> {
        self.pending_config
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&config)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, HostState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn scanner(&self) -> MutexGuard<'_, Scanner> {
        self.scanner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn plugin(&self, name: &str) -> Option<Arc<Plugin>> {
        self.plugins
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// The handle of a plugin, created if necessary.
    fn handle(&self, name: &PluginName) -> Arc<Plugin> {
        let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Plugin::new(name.clone()));
        Arc::clone(plugins.entry(name.clone()).or_insert_with(new))
    }

    /// Scans the whole directory and starts the resulting attempts. `retry` names plugins whose refused
    /// versions are to be tried again, and `why` the kind of retry. It starts those of them again that were
    /// given up, and returns them.
    pub(crate) fn rescan(self: &Arc<Self>, retry: &[PluginName], why: Why) -> Vec<PluginName> {
        let dirty = self.watchers.take(true);
        self.look(&dirty, retry, why)
    }

    /// Scans what may have changed.
    pub(crate) fn look_at_dirty(self: &Arc<Self>) {
        let dirty = self.watchers.take(false);
        if !dirty.is_empty() || !self.scanner().is_at_rest() {
            self.look(&dirty, &[], Why::Changed);
        }
    }

    /// Scans these packages as if a watcher had reported them.
    pub(crate) fn look(
        self: &Arc<Self>,
        dirty: &Dirty,
        retry: &[PluginName],
        why: Why,
    ) -> Vec<PluginName> {
        let mut scanner = self.scanner();
        scanner.look_at_signatures(self.config().looks_at_signatures());
        {
            let mut state = self.state();
            if state.stopping {
                return Vec::new();
            }
            state.counters.count_look(dirty);
        }
        let revived = self.revive(retry);
        let findings = scanner.look(Instant::now(), dirty, &mut &self.watchers);
        let is_new = |name: &PluginName| findings.changed.iter().any(|it| it.meta.name == *name);
        let again: Vec<_> = retry
            .iter()
            .filter(|name| self.is_refused(name) || is_new(name))
            .filter_map(|name| scanner.find(name.as_str()))
            .map(|found| (target(found), why))
            .collect();
        // The scanner stays locked until the findings are applied, so that those of concurrent scans are
        // applied in order.
        self.take(findings, again);
        drop(scanner);
        if self.watchers.must_poll().is_some() {
            self.clock.full_within(self.config().poll());
        }
        revived
    }

    fn is_refused(&self, name: &PluginName) -> bool {
        let state = self.state();
        let slot = state.machine.slot(name.as_str());
        slot.is_some_and(|slot| slot.refused().is_some())
    }

    fn take(self: &Arc<Self>, findings: Findings, again: Vec<(Target, Why)>) {
        tell_of_pass(&findings);
        if let Some(next) = findings.next_look {
            self.clock.wake_at(next);
        }
        // A missing plugin directory cannot be watched.
        if findings
            .problems
            .iter()
            .any(|problem| problem.package.is_empty())
        {
            self.clock.wake_at(Instant::now() + LOOK_FOR_DIR);
        }
        self.take_problems(findings.problems, findings.next_look.is_some());
        // A requested plugin is tried even if it only seems to have changed.
        let mut new = findings.changed;
        new.retain(|found| !again.iter().any(|(it, _)| it.meta.name == found.meta.name));
        let mut changed = again;
        changed.extend(new.into_iter().map(|found| (target(found), Why::Changed)));
        let gone = findings.gone;
        self.drive(|state| state.machine.scanned(changed, &gone));
        self.settled.notify_all();
    }

    fn take_problems(&self, problems: Vec<Problem>, unsettled: bool) {
        let mut state = self.state();
        let is_new = |it: &&Problem| !state.problems.contains(it);
        let new: Vec<_> = problems.iter().filter(is_new).cloned().collect();
        for problem in new {
            state.record(Happened::Host(HostEvent::Problem(problem)));
        }
        if state.problems != problems {
            state.problems = problems;
            state.changed();
        }
        state.unsettled = unsettled;
    }

    /// Runs a task for a plugin on its own thread, now or as soon as one is available.
    pub(crate) fn in_background(self: &Arc<Self>, plugin: &PluginName, task: Task<Self>) {
        if let Some(postponed) = self.background.run(self, plugin, task) {
            self.postponed(plugin, postponed);
        }
    }

    /// Reports work that waits for a thread.
    pub(crate) fn postponed(&self, plugin: &PluginName, Postponed { due, news }: Postponed) {
        if let Some(reason) = news {
            let mut state = self.state();
            state.happened(plugin, PluginEvent::Postponed { reason });
        }
        self.clock.wake_at(due);
    }

    /// Changes the machine and starts the resulting steps.
    pub(crate) fn drive(self: &Arc<Self>, change: impl FnOnce(&mut HostState) -> Vec<Step>) {
        let later = self.decide(change);
        self.dispatch(later);
    }

    /// Applies one event and starts the resulting steps.
    pub(crate) fn apply(self: &Arc<Self>, name: &PluginName, event: Event) {
        self.drive(|state| state.machine.apply(name, event));
    }

    /// Records what happened to a plugin and applies the corresponding event of the life cycle, so that
    /// nobody sees one without the other.
    pub(crate) fn tell_and_apply(
        self: &Arc<Self>,
        name: &PluginName,
        happened: impl IntoIterator<Item = PluginEvent>,
        event: Option<Event>,
    ) {
        self.drive(|state| {
            for happened in happened {
                state.happened(name, happened);
            }
            event.map_or_else(Vec::new, |event| state.machine.apply(name, event))
        });
    }

    /// Applies one event and starts the resulting steps, except for the next step of the event's own
    /// attempt, which it returns for the caller to continue with.
    pub(crate) fn advance(self: &Arc<Self>, name: &PluginName, event: Event) -> Option<Later> {
        let ticket = event.ticket();
        let mut later = self.decide(|state| state.machine.apply(name, event));
        let mine = [Later::Start(ticket), Later::HandOver(ticket)];
        let index = later.iter().position(|(_, step)| mine.contains(step));
        let next = index.map(|index| later.remove(index).1);
        self.dispatch(later);
        next
    }

    /// Changes the machine and carries out the immediate steps; returns the others.
    fn decide(&self, change: impl FnOnce(&mut HostState) -> Vec<Step>) -> Vec<(PluginName, Later)> {
        let mut state = self.state();
        let steps = change(&mut state);
        let touched: BTreeSet<_> = steps.iter().map(|step| step.plugin.clone()).collect();
        let mut rest = Vec::new();
        for Step { plugin, action } in steps {
            match action {
                Action::Now(now) => self.do_now(&mut state, &plugin, now),
                Action::Later(Later::Persist) if self.store.is_none() => {}
                Action::Later(later) => {
                    state.persisting += usize::from(later == Later::Persist);
                    rest.push((plugin, later));
                }
            }
        }
        for name in touched {
            self.tidy(&mut state, &name);
        }
        drop(state);
        self.settled.notify_all();
        rest
    }

    fn do_now(&self, state: &mut HostState, name: &PluginName, now: Now) {
        match now {
            Now::Begin(ticket, target) => {
                let slot = state.machine.slot(name.as_str());
                // An attempt that begins is its slot's candidate.
                let why = slot.and_then(Slot::why).unwrap_or(Why::Changed);
                let attempt = Attempt::new(target, why, self.config());
                state.attempts.insert(ticket, attempt);
            }
            Now::Switch(ticket) => self.switch(state, name, ticket),
            Now::Withdraw => {
                let old = self.handle(name).live.swap(None);
                trace!(target: "hotmerge::plugin", plugin = %name, "no version takes calls");
                state.set_draining(old);
            }
            Now::Resume => {
                self.handle(name).resume();
                trace!(target: "hotmerge::plugin", plugin = %name, "calls continue as before");
            }
            Now::BeginTrial(ticket) => self.begin_trial(state, name, ticket),
            Now::EndTrial(_) => {
                let tried = self.handle(name).end_canary();
                state.set_draining(tried);
            }
            Now::Forget(ticket) => drop(state.attempts.remove(&ticket)),
            Now::Report(ticket, outcome) => {
                let origin = state.attempts.get(&ticket).map(|it| &it.target.origin);
                if matches!(outcome, Outcome::Refused(_))
                    && matches!(origin, Some(Origin::Running(_)))
                {
                    self.not_replaced(name);
                }
                if outcome == Outcome::Unchanged {
                    state.runs_already(name, ticket);
                }
                state.report(name, ticket, outcome);
            }
            Now::Note(note) => state.happened(name, PluginEvent::Transition(note)),
        }
    }

    fn switch(&self, state: &mut HostState, name: &PluginName, ticket: Ticket) {
        let plugin = self.handle(name);
        let attempt = state.attempts.get(&ticket);
        if attempt.is_some_and(|it| matches!(it.target.origin, Origin::Running(_))) {
            let recovered = PluginEvent::Recovered {
                state_age: plugin.peek(|version| version.instance.checkpoint().age()),
                is_live: true,
            };
            state.happened(name, recovered);
        }
        let old = match state.ready_version(name, ticket, Progress::Live) {
            Some(version) => plugin.live.swap(Some(version)),
            None => {
                if let Some(attempt) = state.attempts.get_mut(&ticket) {
                    attempt.progress = Progress::Live;
                }
                // It took its share of the calls before, and may still be running some.
                plugin
                    .end_canary()
                    .and_then(|tried| plugin.live.put_back(tried))
            }
        };
        state.has_run(name, ticket);
        trace!(
            target: "hotmerge::plugin",
            plugin = %name,
            ticket = ticket.0,
            "switched: new calls go to this version"
        );
        // During a hand-over of state, the old version was set aside.
        state.set_draining(old.or_else(|| plugin.handing.swap(None)));
    }

    fn begin_trial(&self, state: &mut HostState, name: &PluginName, ticket: Ticket) {
        let attempt = state.attempts.get(&ticket);
        let Some(canary) = attempt.and_then(|attempt| attempt.config.canary(name)) else {
            return;
        };
        let until = Instant::now() + canary.duration();
        if let Some(version) = state.ready_version(name, ticket, Progress::Trying(until)) {
            self.handle(name).begin_canary(version, canary.share);
            // The clock judges it from time to time, and schedules the next time itself.
            self.clock.wake_at(until.min(Instant::now() + RECHECK));
        }
    }

    /// Forgets what nothing refers to any more.
    fn tidy(&self, state: &mut HostState, name: &PluginName) {
        let slot = state.machine.slot(name.as_str());
        let (active, busy) = slot.map_or((false, false), |slot| {
            (slot.candidate().is_some(), slot.is_busy())
        });
        let is_overtaken = slot.is_some_and(|slot| slot.overtaken() > 0);
        let known = slot.is_some();
        set(&mut state.active, name, active);
        set(&mut state.busy, name, busy);
        if !busy {
            state.differing.remove(name);
            state.overtaken.remove(name);
        } else if is_overtaken {
            let since = state.overtaken.entry(name.clone());
            since.or_insert_with(Timestamp::now);
        }
        if !known {
            state.health.remove(name);
            let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
            // A handle that is still held stays valid for the plugin if it returns.
            if plugins
                .get(name)
                .is_some_and(|plugin| Arc::strong_count(plugin) == 1)
            {
                plugins.remove(name);
            }
        }
    }

    fn dispatch(self: &Arc<Self>, steps: Vec<(PluginName, Later)>) {
        for (plugin, later) in steps {
            match later {
                Later::Verify(ticket) | Later::Start(ticket) => {
                    self.submit(Job::BringUp(plugin, ticket));
                }
                Later::Drain(ticket) => self.end_in_background(&plugin, ticket),
                Later::Discard(ticket) => self.discard_in_background(&plugin, ticket),
                Later::BreakOff(ticket) => self.break_off(ticket),
                Later::Persist => self.submit(Job::Persist(plugin)),
                // The threads that started and drained it continue themselves.
                Later::HandOver(_) | Later::End(_) => {}
            }
        }
    }

    /// Notes that one record of the store was written.
    pub(crate) fn persisted(&self) {
        let mut state = self.state();
        state.persisting -= 1;
        drop(state);
        self.settled.notify_all();
    }

    /// Waits until no attempt is in progress, nothing is unsettled, and the store is up to date.
    pub(crate) fn wait_settled(&self) -> MutexGuard<'_, HostState> {
        self.wait_while(|state| !state.busy.is_empty() || state.persisting > 0 || state.unsettled)
    }

    /// Waits until no attempt for one of these is in progress and nothing is unsettled.
    pub(crate) fn wait_settled_of(&self, names: &[PluginName]) -> MutexGuard<'_, HostState> {
        self.wait_while(|state| {
            names.iter().any(|name| state.busy.contains(name)) || state.unsettled
        })
    }

    fn wait_while(&self, is_busy: impl Fn(&HostState) -> bool) -> MutexGuard<'_, HostState> {
        let mut state = self.state();
        while !state.stopping && is_busy(&state) {
            state = self
                .settled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Makes stopping wait for nothing.
    pub(crate) fn hurry(&self) {
        self.state().hurried = true;
        self.settled.notify_all();
    }

    /// Takes every plugin out of service and waits until the old versions have ended or their time is over.
    /// Returns how many have not ended.
    pub(crate) fn stop(self: &Arc<Self>) -> usize {
        self.state().stopping = true;
        self.drive(|state| state.machine.stop());
        let deadline = Instant::now() + self.config().longest_end();
        let mut state = self.state();
        loop {
            let left = state.running() + state.persisting;
            let now = Instant::now();
            if left == 0 || now >= deadline || state.hurried {
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

fn tell_of_pass(findings: &Findings) {
    trace!(
        target: "hotmerge::watch",
        changed = findings.changed.len(),
        gone = findings.gone.len(),
        problems = findings.problems.len(),
        unsettled = findings.next_look.is_some(),
        "scanned the plugin directory"
    );
    for Found { package, meta, .. } in &findings.changed {
        let (plugin, hash) = (&meta.name, meta.hash.short());
        debug!(target: "hotmerge::watch", %plugin, %package, hash, "new or changed in the directory");
    }
    for plugin in &findings.gone {
        debug!(target: "hotmerge::watch", %plugin, "gone from the directory");
    }
}

fn target(found: Found) -> Target {
    Target {
        meta: Arc::new(found.meta),
        origin: Origin::Package(found.package),
        takes_state: true,
        is_ordered: false,
    }
}
