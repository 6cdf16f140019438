//! Holds every plugin's slot and carries out what the state machine decides.
//!
//! One lock covers the slots. Actions that cannot wait or fail (switch, withdraw, report)
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

use hotmerge_meta::{
    Digest, PluginMeta, PluginName,
    control::{Action as Did, PluginReport, Problem},
};

use crate::{
    Config, Plugin,
    attempt::Attempt,
    clock::Clock,
    history::History,
    jobs::Jobs,
    lifecycle::{Action, Event, Outcome, Refused, Slot, Ticket},
    plugin::Version,
    scan::{Findings, Found, Scanner},
};

/// How soon the clock looks again while something that it must not miss is under way.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(crate) struct Supervisor {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) jobs: Jobs,
    pub(crate) counters: Counters,
    pub(crate) plugin_dir: PathBuf,
    scanner: Mutex<Scanner>,
    pub(crate) plugins: RwLock<BTreeMap<PluginName, Arc<Plugin>>>,
    state: Mutex<State>,
    settled: Condvar,
    tickets: AtomicU64,
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
    pub(crate) slots: BTreeMap<PluginName, Slot>,
    pub(crate) attempts: HashMap<Ticket, Attempt>,
    pub(crate) history: History,
    pub(crate) problems: Vec<Problem>,
    /// Plugins with an attempt under way.
    busy: BTreeSet<PluginName>,
    /// Candidates whose file and meta differ: since when, and how.
    differing: HashMap<PluginName, (Instant, String)>,
    /// Whether the last pass found something that has not settled.
    unsettled: bool,
    stopping: bool,
}

impl Supervisor {
    pub(crate) fn new(config: Config, plugin_dir: PathBuf) -> Self {
        let scanner = Scanner::new(plugin_dir.clone(), config.settle());
        Self {
            plugin_dir,
            config,
            clock: Clock::default(),
            jobs: Jobs::new(),
            counters: Counters::default(),
            scanner: Mutex::new(scanner),
            plugins: RwLock::default(),
            state: Mutex::default(),
            settled: Condvar::new(),
            tickets: AtomicU64::new(0),
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

    /// Looks at the directory and sets going whatever follows. `retry` names plugins whose
    /// refused versions are to be tried again.
    pub(crate) fn rescan(self: &Arc<Self>, retry: &[PluginName]) {
        let mut scanner = self.scanner.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state().stopping {
            return;
        }
        self.counters.rescans.fetch_add(1, Ordering::Relaxed);
        let findings = scanner.scan(Instant::now());
        let again: Vec<_> = retry
            .iter()
            .filter(|name| self.is_refused(name))
            .filter_map(|name| scanner.find(name.as_str()))
            .collect();
        // The scanner stays locked until the findings are applied: two passes at once must
        // not be applied in the wrong order.
        self.take(findings, again);
    }

    fn is_refused(&self, name: &PluginName) -> bool {
        let state = self.state();
        state
            .slots
            .get(name)
            .is_some_and(|slot| slot.refused().is_some())
    }

    fn take(self: &Arc<Self>, findings: Findings, again: Vec<Found>) {
        if let Some(next) = findings.next_look {
            self.clock.wake_at(next);
        }
        self.take_problems(findings.problems, findings.next_look.is_some());
        for name in findings.gone {
            self.abandon(&name);
            self.apply(&name, Event::Gone);
        }
        for found in again {
            if !findings
                .changed
                .iter()
                .any(|other| other.meta.name == found.meta.name)
            {
                self.attempt(found, true);
            }
        }
        for found in findings.changed {
            self.attempt(found, false);
        }
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

    fn attempt(self: &Arc<Self>, found: Found, retry: bool) {
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        let name = found.meta.name.clone();
        self.abandon(&name);
        self.state()
            .attempts
            .insert(ticket, Attempt::new(found.package, found.meta));
        self.apply(&name, Event::Changed { ticket, retry });
    }

    /// Forgets a candidate that only waits: nobody else would.
    fn abandon(&self, name: &PluginName) {
        let mut state = self.state();
        if let Some(slot) = state.slots.get(name)
            && slot.is_settling()
            && let Some(ticket) = slot.candidate()
        {
            state.attempts.remove(&ticket);
        }
    }

    /// Applies one event and sets going what follows.
    pub(crate) fn apply(self: &Arc<Self>, name: &PluginName, event: Event) {
        for action in self.decide(name, event) {
            self.dispatch(name, action);
        }
    }

    /// Applies one event; returns what is still to be set going.
    pub(crate) fn decide(&self, name: &PluginName, event: Event) -> Vec<Action> {
        let mut state = self.state();
        let about = event.about();
        let slot = state.slots.entry(name.clone()).or_default();
        let mut later = Vec::new();
        for action in slot.apply(event) {
            match action {
                Action::Switch(ticket) => self.switch(&mut state, name, Some(ticket)),
                Action::Withdraw => self.switch(&mut state, name, None),
                Action::Report(ticket, outcome) => report(&mut state, name, ticket, outcome),
                other => later.push(other),
            }
        }
        self.tidy(&mut state, name, about, &later);
        drop(state);
        self.settled.notify_all();
        later
    }

    fn tidy(&self, state: &mut State, name: &PluginName, about: Option<Ticket>, later: &[Action]) {
        let Some(slot) = state.slots.get(name) else {
            return;
        };
        let (busy, empty) = (slot.is_busy(), slot.is_empty());
        if let Some(ticket) = about
            && !slot.refers_to(ticket)
            && !later.contains(&Action::Discard(ticket))
        {
            state.attempts.remove(&ticket);
        }
        if busy {
            state.busy.insert(name.clone());
        } else {
            state.busy.remove(name);
            state.differing.remove(name);
        }
        if empty {
            state.slots.remove(name);
            self.plugins
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(name);
        }
    }

    fn switch(&self, state: &mut State, name: &PluginName, to: Option<Ticket>) {
        let version = to.and_then(|ticket| {
            let live = state.slots.get(name)?.live()?;
            let attempt = state.attempts.get_mut(&ticket)?;
            Some(Box::new(Version {
                instance: attempt.ready.take()?,
                ticket,
                generation: live.generation,
                hash: live.hash,
            }))
        });
        let plugin = self
            .plugins
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Plugin::new(name.clone())))
            .clone();
        if let Some(old) = plugin.live.swap(version)
            && let Some(attempt) = state.attempts.get_mut(&old.ticket)
        {
            attempt.draining = Some(old);
        }
    }

    fn dispatch(self: &Arc<Self>, name: &PluginName, action: Action) {
        match action {
            Action::Verify(ticket) => self.submit(ticket),
            Action::Drain(ticket) => self.end_in_background(name, ticket),
            Action::Discard(ticket) => self.discard_in_background(name, ticket),
            // `Start` goes on where `Verify` has run, `End` where `Drain` has; the rest is
            // done under the lock.
            Action::Start(_)
            | Action::End(_)
            | Action::Switch(_)
            | Action::Withdraw
            | Action::Report(..) => {}
        }
    }

    /// Notes that a candidate's file and meta differ; the first time counts.
    pub(crate) fn differs(self: &Arc<Self>, name: &PluginName, ticket: Ticket, reason: String) {
        let now = Instant::now();
        let mut state = self.state();
        let candidate = state.slots.get(name).and_then(Slot::candidate);
        if candidate == Some(ticket) {
            let entry = state
                .differing
                .entry(name.clone())
                .or_insert((now, String::new()));
            entry.1 = reason;
        }
        drop(state);
        self.apply(name, Event::Differs { ticket });
        self.clock
            .wake_at(now + LOOK_AGAIN.min(self.config.settle()));
    }

    /// Gives up what has taken too long. Called by the clock.
    pub(crate) fn expire(self: &Arc<Self>) {
        let now = Instant::now();
        let mut failed = Vec::new();
        let mut next = None;
        let mut later =
            |due: Instant| next = Some(next.map_or(due, |other: Instant| other.min(due)));
        let state = self.state();
        for name in &state.busy {
            let Some(slot) = state.slots.get(name) else {
                continue;
            };
            let Some(ticket) = slot.candidate() else {
                continue;
            };
            let Some(attempt) = state.attempts.get(&ticket) else {
                continue;
            };
            // One that starts is past that, however long it had differed before.
            if let Some((since, reason)) = state.differing.get(name).filter(|_| slot.is_settling())
            {
                if now >= *since + self.config.settle() {
                    failed.push((
                        name.clone(),
                        ticket,
                        attempt.meta.hash,
                        reason.clone(),
                        false,
                    ));
                } else {
                    later(now + LOOK_AGAIN);
                }
            } else if let Some(began) = attempt.starting {
                if now >= began + self.config.start() {
                    let reason = format!(
                        "it has not started within {} ms; it is given up, its thread is kept",
                        self.config.start_ms
                    );
                    failed.push((name.clone(), ticket, attempt.meta.hash, reason, true));
                } else {
                    later(began + self.config.start());
                }
            }
        }
        drop(state);
        for (name, ticket, hash, reason, lasting) in failed {
            if lasting {
                self.write_off(ticket);
            }
            let refused = Refused {
                hash,
                reason,
                lasting,
            };
            self.apply(&name, Event::Failed { ticket, refused });
        }
        if let Some(next) = next {
            self.clock.wake_at(next);
        }
    }

    /// Waits until no attempt is under way and nothing is unsettled.
    pub(crate) fn wait_settled(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        while !(state.stopping || state.busy.is_empty() && !state.unsettled) {
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
        let names: Vec<_> = self.state().slots.keys().cloned().collect();
        for name in names {
            self.apply(&name, Event::Gone);
        }
        let deadline = Instant::now() + self.config.drain() + self.config.teardown();
        let mut state = self.state();
        loop {
            let left: usize = state.slots.values().map(|slot| slot.endings().len()).sum();
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

impl Event {
    fn about(&self) -> Option<Ticket> {
        match self {
            Self::Changed { ticket, .. }
            | Self::Verified { ticket, .. }
            | Self::Differs { ticket }
            | Self::Failed { ticket, .. }
            | Self::Started { ticket }
            | Self::Drained { ticket }
            | Self::Late { ticket }
            | Self::Ended { ticket } => Some(*ticket),
            Self::Gone => None,
        }
    }
}

impl State {
    /// What is known of the version that takes calls.
    pub(crate) fn live_meta(&self, name: &str) -> Option<&PluginMeta> {
        let live = self.slots.get(name)?.live()?;
        Some(&self.attempts.get(&live.ticket)?.meta)
    }
}

/// Writes an outcome into the history and the log.
fn report(state: &mut State, name: &PluginName, ticket: Ticket, outcome: Outcome) {
    let Some((meta, began)) = state
        .attempts
        .get(&ticket)
        .map(|attempt| (attempt.meta.clone(), attempt.began))
    else {
        return;
    };
    let live = state.slots.get(name).and_then(Slot::live);
    let mut report = PluginReport {
        plugin: name.clone(),
        action: Did::Unchanged,
        old_hash: live.map(|live| live.hash),
        hash: live.map(|live| live.hash),
        version: Some(meta.version.clone()),
        generation: live.map(|live| live.generation),
        reason: None,
        took_ms: began.elapsed().as_secs_f64() * 1e3,
    };
    fill(&mut report, outcome);
    if report.action == Did::Unchanged
        && let Some(live) = live
        && let Some(attempt) = state.attempts.get_mut(&live.ticket)
    {
        // A new version number over the same code.
        attempt.meta = meta;
    }
    log(&report);
    state.history.push(report);
}

fn fill(report: &mut PluginReport, outcome: Outcome) {
    let (action, old_hash, hash): (_, Option<Digest>, Option<Digest>) = match outcome {
        Outcome::Loaded => (Did::Loaded, None, report.hash),
        Outcome::Reloaded(old) => (Did::Reloaded, Some(old), report.hash),
        Outcome::Unchanged => (Did::Unchanged, report.hash, report.hash),
        Outcome::Refused(refused) => {
            report.reason = Some(refused.reason);
            (Did::Refused, report.hash, Some(refused.hash))
        }
        Outcome::Removed(old) => {
            report.took_ms = 0.0;
            (Did::Removed, Some(old), None)
        }
    };
    report.action = action;
    report.old_hash = old_hash;
    report.hash = hash;
}

fn log(report: &PluginReport) {
    let short = |hash: Option<Digest>| hash.map_or_else(|| "-".to_owned(), |hash| hash.short());
    let (plugin, old, new) = (&report.plugin, short(report.old_hash), short(report.hash));
    let ms = report.took_ms;
    match report.action {
        Did::Loaded => tracing::info!(%plugin, hash = new, ms, "loaded"),
        Did::Reloaded => tracing::info!(%plugin, old, new, ms, "reloaded"),
        Did::Unchanged => tracing::debug!(%plugin, hash = new, "unchanged"),
        Did::Removed => tracing::info!(%plugin, old, "removed"),
        Did::Refused => {
            let reason = report.reason.as_deref().unwrap_or_default();
            tracing::error!(%plugin, hash = new, "refused: {reason}");
        }
    }
}
