//! All plugins of a host: the directory's contents, the operator's choices, and the order that
//! requirements impose.
//!
//! Invariant: every call completes all possible work: no candidate whose requirements are met
//! waits, and no version that must leave and is not held stays.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hotmerge_meta::{Digest, PluginMeta, PluginName};

use crate::{
    Action, Choice, Event, Later, Leave, Note, Now, Origin, Outcome, PluginState, Reconfigured,
    Stage, Step, Target, Ticket, Verdict, Why,
    slot::{Attempt, GONE, STOPPED, Slot},
};

/// All plugins of a host.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub(super) directory: BTreeMap<PluginName, Target>,
    pub(super) slots: BTreeMap<PluginName, Slot>,
    /// Those in the directory that require others.
    pub(super) demanding: BTreeSet<PluginName>,
    pub(super) choices: BTreeMap<PluginName, Choice>,
    /// At the start: the versions of the host's last run.
    last_good: BTreeMap<PluginName, Arc<PluginMeta>>,
    tickets: u64,
    waiting: BTreeSet<PluginName>,
    blocked: BTreeSet<PluginName>,
    /// Those that have changed since everything was settled.
    changed: BTreeSet<PluginName>,
    /// Whether some live version may have to leave.
    pub(super) leaving: bool,
    /// Whether the host is stopping, so that nothing may start.
    stopped: bool,
}

impl Machine {
    /// Every known plugin.
    pub fn slots(&self) -> &BTreeMap<PluginName, Slot> {
        &self.slots
    }

    /// One plugin.
    pub fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.get(name)
    }

    /// The plugin directory's version of a plugin.
    pub fn found_in_directory(&self, name: &str) -> Option<&Target> {
        self.directory.get(name)
    }

    /// Whether the plugin is known, even if only by a pin for its return.
    pub fn knows(&self, name: &PluginName) -> bool {
        self.slots.contains_key(name)
            || self.directory.contains_key(name)
            || self.choices.contains_key(name)
    }

    /// Restores the state of the host's last run. Call it first.
    pub fn remember(
        &mut self,
        name: PluginName,
        last_good: Option<Arc<PluginMeta>>,
        choice: Option<Choice>,
    ) {
        if let Some(meta) = last_good {
            self.last_good.insert(name.clone(), meta);
        }
        if let Some(choice) = choice {
            self.choices.insert(name, choice);
        }
    }

    /// A scan of the plugin directory: what is new or changed there or asked for, and what is gone.
    pub fn scanned(&mut self, changed: Vec<(Target, Why)>, gone: &[PluginName]) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.stopped {
            return steps;
        }
        for name in gone {
            self.directory.remove(name);
            self.demanding.remove(name);
            self.last_good.remove(name);
            if self.slots.contains_key(name) {
                self.leaving = true;
                self.change(name, &mut steps, |slot, out| slot.gone(GONE, out));
            }
            if self.choice(name).is_some_and(|choice| !choice.pinned) {
                self.choose(name, None);
            }
            push(&mut steps, name, Later::Persist.into());
        }
        let mut offers = Vec::new();
        // Requirements must be resolvable, so the whole directory is recorded before the first
        // candidate.
        for (target, why) in changed {
            let name = target.meta.name.clone();
            if target.meta.requires.is_empty() {
                self.demanding.remove(&name);
            } else {
                self.demanding.insert(name.clone());
            }
            self.directory.insert(name.clone(), target);
            offers.push((name, why));
        }
        for (name, why) in offers {
            self.offer(&name, why, &mut steps);
        }
        self.settle(&mut steps);
        steps
    }

    /// The operator has changed settings of plugins. Those that run with others start anew, and
    /// those that were refused are tried again: the settings may have been the cause.
    pub fn reconfigured(&mut self, plugins: &[(PluginName, Reconfigured)]) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.stopped {
            return steps;
        }
        for (name, what) in plugins {
            let Some(slot) = self.slots.get_mut(name) else {
                continue;
            };
            let may_be_better = slot.reconfigured(*what);
            let live = slot.live().map(|live| live.meta.hash);
            let found = self.directory.get(name).map(|found| found.meta.hash);
            if may_be_better && live != found {
                self.offer(name, Why::Reconfigured, &mut steps);
            }
            self.change(name, &mut steps, |_, _| {});
        }
        self.settle(&mut steps);
        steps
    }

    /// Takes everything out of service, each plugin before its requirements. What the
    /// directory has no longer counts: a scan may be in progress at this moment.
    pub fn stop(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.stopped = true;
        self.directory.clear();
        self.demanding.clear();
        self.last_good.clear();
        self.leaving = true;
        let names: Vec<_> = self.slots.keys().cloned().collect();
        for name in names {
            self.change(&name, &mut steps, |slot, out| slot.gone(STOPPED, out));
        }
        self.settle(&mut steps);
        steps
    }

    /// Applies one event. Events about outdated attempts only end what those attempts brought
    /// up.
    pub fn apply(&mut self, name: &PluginName, event: Event) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut again = None;
        self.change(name, &mut steps, |slot, out| match event {
            Event::Verified { ticket } => slot.verified(ticket, out),
            Event::Differs { ticket } => slot.differs(ticket),
            Event::Failed { ticket, refused } => slot.failed(ticket, refused, out),
            Event::NotHandedOver { ticket, refused } => {
                again = slot.without_state(ticket);
                slot.failed(ticket, refused, out);
            }
            Event::Started { ticket, next } => slot.started(ticket, next, out),
            Event::HandedOver { ticket } => slot.handed_over(ticket, out),
            Event::Proven { ticket, calls } => slot.proven(ticket, calls, out),
            Event::Drained { ticket } => slot.drained(ticket, out),
            Event::Late { ticket } => slot.late(ticket, out),
            Event::Ended { ticket } => slot.ended(ticket, out),
            Event::Crashed { ticket, what } => slot.crashed(ticket, what, out),
            Event::Replace { ticket } => slot.replace(ticket),
            Event::GivenUp { ticket, reason } => slot.give_up(ticket, reason),
            Event::Revived { ticket } => slot.revive(ticket),
        });
        // What came meanwhile goes first, and what has gone from the directory does not come back.
        let is_free = |slot: &Slot| slot.candidate().is_none() && self.directory.contains_key(name);
        if let Some(attempt) = again
            && self.slots.get(name).is_some_and(is_free)
        {
            self.attempt(name, attempt, &mut steps);
        }
        self.settle(&mut steps);
        steps
    }

    pub(super) fn attempt(&mut self, name: &PluginName, attempt: Attempt, steps: &mut Vec<Step>) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.change(name, steps, |slot, out| slot.begin(ticket, attempt, out));
    }

    /// Changes one slot and applies the consequences for that slot.
    pub(super) fn change(
        &mut self,
        name: &PluginName,
        steps: &mut Vec<Step>,
        change: impl FnOnce(&mut Slot, &mut Vec<Action>),
    ) {
        let choices = &self.choices;
        let new = || Slot::new(choices.get(name).cloned());
        let slot = self.slots.entry(name.clone()).or_insert_with(new);
        let before = (slot.state(), slot.stage());
        let was_live = slot.live().map(|live| live.ticket);
        // What was refused before it was verified is a file, whatever hash its meta names.
        let is_unread = matches!(slot.stage(), Some(Stage::Verifying | Stage::Settling))
            && slot
                .candidate()
                .is_some_and(|(_, target)| target.origin.package().is_some());
        let mut actions = Vec::new();
        change(slot, &mut actions);
        let after = (slot.state(), slot.stage());
        if before != after {
            note(steps, name, before, after, slot.reason.clone());
        }
        let (live, choice) = (slot.live().map(|live| live.ticket), slot.choice.clone());
        let failed = actions.iter().find_map(|action| match action {
            Action::Now(Now::Report(_, outcome)) => match outcome {
                Outcome::Refused(refused) => Some((!is_unread).then_some(refused.meta.hash)),
                Outcome::Loaded
                | Outcome::Reloaded(_)
                | Outcome::Unchanged
                | Outcome::Trying
                | Outcome::StaysOut(_)
                | Outcome::Removed(_)
                | Outcome::Stopped(_) => None,
            },
            Action::Now(
                Now::Begin(..)
                | Now::Resume
                | Now::BeginTrial(_)
                | Now::EndTrial(_)
                | Now::Switch(_)
                | Now::Withdraw
                | Now::Forget(_)
                | Now::Note(_),
            )
            | Action::Later(_) => None,
        });
        for action in actions {
            if action == Action::Later(Later::Persist) {
                match &choice {
                    Some(choice) => self.choices.insert(name.clone(), choice.clone()),
                    None => self.choices.remove(name),
                };
            }
            push(steps, name, action);
        }
        self.index(name);
        if live != was_live && live.is_some() {
            self.last_good.remove(name);
            self.leaving |= self.is_demanding(name);
            if was_live.is_some() {
                self.outdate_dependants(name, steps);
            }
        }
        if let Some(hash) = failed
            && live.is_none()
        {
            self.fall_back(name, hash, steps);
        }
        self.resume_deferred(name, steps);
        self.restart_live(name, steps);
        self.changed.insert(name.clone());
    }

    fn outdate_dependants(&mut self, replaced: &PluginName, steps: &mut Vec<Step>) {
        for name in self.slots.keys().cloned().collect::<Vec<_>>() {
            if let Some(slot) = self.slots.get_mut(&name) {
                slot.outdate(replaced);
            }
            self.restart_live(&name, steps);
        }
    }

    /// Updates the sets of plugins that may need further steps.
    fn index(&mut self, name: &PluginName) {
        let Some(slot) = self.slots.get(name) else {
            return;
        };
        set(
            &mut self.waiting,
            name,
            slot.stage() == Some(Stage::Waiting),
        );
        set(&mut self.blocked, name, slot.is_blocked());
        if slot.is_empty() {
            self.slots.remove(name);
        }
    }

    fn is_demanding(&self, name: &PluginName) -> bool {
        let live = self.slots.get(name).and_then(Slot::live);
        live.is_some_and(|live| !live.meta.requires.is_empty())
    }

    /// Restarts a live version that crashed or that caches something from a replaced plugin.
    pub(super) fn restart_live(&mut self, name: &PluginName, steps: &mut Vec<Step>) {
        // A leaving plugin does not restart; it may return before it has left.
        let (Some(found), Some(slot)) = (self.directory.get(name), self.slots.get_mut(name)) else {
            return;
        };
        let Some((meta, why)) = slot.take_restart() else {
            return;
        };
        let is_found = found.meta.runs_as(&meta);
        let target = if why == Why::Crashed {
            let package = found.origin.package().filter(|_| is_found);
            Target {
                origin: Origin::Running(package.cloned()),
                ..Target::kept(meta)
            }
        } else if is_found {
            found.clone()
        } else {
            Target::kept(meta)
        };
        let attempt = Attempt {
            target,
            why,
            choice: slot.choice.clone(),
        };
        self.attempt(name, attempt, steps);
    }

    /// At the host's start, a refused version must not be all there is. `refused` is the hash of
    /// bytes that were refused, if the bytes were those of a hash at all.
    fn fall_back(&mut self, name: &PluginName, refused: Option<Digest>, steps: &mut Vec<Step>) {
        let Some(meta) = self.last_good.remove(name) else {
            return;
        };
        if Some(meta.hash) != refused && self.directory.contains_key(name) {
            let attempt = Attempt {
                target: Target::kept(meta),
                why: Why::Fallback,
                choice: self.choice(name).cloned(),
            };
            self.attempt(name, attempt, steps);
        }
    }

    /// A restart that was refused may have taken the place of another refusal, which is over with
    /// it: then nothing says why the directory's version does not run, and it is tried again.
    fn offer_forgotten(&mut self, name: &PluginName, steps: &mut Vec<Step>) {
        let (Some(found), Some(slot)) = (self.directory.get(name), self.slots.get(name)) else {
            return;
        };
        let hash = found.meta.hash;
        let is_explained = slot.candidate.is_some()
            || slot.deferred.is_some()
            || slot.refused.is_some()
            || slot.live().is_none_or(|live| live.meta.hash == hash)
            || self.choice(name).is_some_and(|it| it.stands_against(&hash));
        if !is_explained {
            self.offer(name, Why::Reconfigured, steps);
        }
    }

    fn resume_deferred(&mut self, name: &PluginName, steps: &mut Vec<Step>) {
        if let Some(slot) = self.slots.get_mut(name)
            && !slot.holds_back()
            && let Some(attempt) = slot.deferred.take()
        {
            self.attempt(name, attempt, steps);
        }
    }

    /// Takes every step that has become possible or necessary for any plugin.
    pub(super) fn settle(&mut self, steps: &mut Vec<Step>) {
        loop {
            let before = steps.len();
            for name in self.waiting.clone() {
                self.decide(&name, steps);
            }
            for name in self.blocked.clone() {
                self.unblock(&name, steps);
            }
            if self.leaving {
                self.let_go(steps);
            }
            for name in std::mem::take(&mut self.changed) {
                self.offer_forgotten(&name, steps);
            }
            if steps.len() == before {
                return;
            }
        }
    }

    fn decide(&mut self, name: &PluginName, steps: &mut Vec<Step>) {
        let Some((_, target)) = self.slots.get(name).and_then(Slot::candidate) else {
            return;
        };
        match self.verdict(&target.meta) {
            Verdict::Go => self.change(name, steps, Slot::start),
            Verdict::No(reason) => self.change(name, steps, |slot, out| slot.block(reason, out)),
            Verdict::Wait => self.stop_waiting(name, steps),
        }
    }

    /// Nobody knows how long a candidate waits for others: what was deferred goes first.
    fn stop_waiting(&mut self, name: &PluginName, steps: &mut Vec<Step>) {
        let slot = self.slots.get_mut(name);
        if let Some(attempt) = slot.and_then(|slot| slot.deferred.take()) {
            self.attempt(name, attempt, steps);
        }
    }

    fn unblock(&mut self, name: &PluginName, steps: &mut Vec<Step>) {
        let Some(meta) = self.wanted(name) else {
            return;
        };
        if !matches!(self.verdict(meta), Verdict::No(_)) {
            self.change(name, steps, |slot, _| slot.unblock());
            self.offer(name, Why::Unblocked, steps);
        }
    }

    /// Takes leaving plugins out of service, dependants first.
    fn let_go(&mut self, steps: &mut Vec<Step>) {
        let leaving = self.leaving();
        self.leaving = !leaving.is_empty();
        let is_free = |name: &&PluginName| {
            let slot = self.slots.get(*name);
            slot.and_then(Slot::stage) != Some(Stage::HandingOver)
        };
        let mut going: Vec<_> = leaving
            .keys()
            .filter(is_free)
            .filter(|name| !self.is_held(name))
            .cloned()
            .collect();
        if going.is_empty() && self.is_circular(&leaving) {
            going.extend(leaving.keys().find(is_free).cloned());
        }
        for name in going {
            let why = match leaving.get(&name).cloned().flatten() {
                Some(lost) => Leave::Unmet(format!(
                    "`{name}` requires `{}` {}, which is no longer there: {name} → {}",
                    lost.name, lost.version, lost.name
                )),
                None if self.stopped => Leave::Stopped,
                None => Leave::Gone,
            };
            self.change(&name, steps, |slot, out| slot.withdraw(why, out));
        }
    }

    /// Whether all leaving plugins hold one another, so that waiting would never end.
    fn is_circular(&self, leaving: &BTreeMap<PluginName, Option<hotmerge_meta::Requires>>) -> bool {
        let waits_for_an_end = self
            .slots
            .values()
            .flat_map(Slot::retiring)
            .filter(|old| old.is_in_time())
            .any(|old| {
                let mut requires = old.meta.requires.iter();
                requires.any(|it| leaving.contains_key(&it.name))
            });
        let hands_over = leaving.keys().any(|name| {
            let slot = self.slots.get(name);
            slot.and_then(Slot::stage) == Some(Stage::HandingOver)
        });
        !leaving.is_empty() && !waits_for_an_end && !hands_over
    }
}

/// Makes a plugin a member of a set, or no member.
pub fn set(set: &mut BTreeSet<PluginName>, name: &PluginName, member: bool) {
    if !member {
        set.remove(name);
    } else if !set.contains(name) {
        set.insert(name.clone());
    }
}

/// Reports a transition. Transitions in immediate succession are reported as one.
fn note(
    steps: &mut Vec<Step>,
    plugin: &PluginName,
    mut from: (PluginState, Option<Stage>),
    to: (PluginState, Option<Stage>),
    reason: Cow<'static, str>,
) {
    if let Some(Step {
        plugin: last,
        action:
            Action::Now(Now::Note(Note::Plugin {
                from: before,
                to: between,
                ..
            })),
    }) = steps.last()
        && last == plugin
        && *between == from
    {
        from = *before;
        steps.pop();
    }
    if from != to {
        push(
            steps,
            plugin,
            Now::Note(Note::Plugin { from, to, reason }).into(),
        );
    }
}

pub(super) fn push(steps: &mut Vec<Step>, plugin: &PluginName, action: Action) {
    steps.push(Step {
        plugin: plugin.clone(),
        action,
    });
}
