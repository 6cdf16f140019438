//! Crashes of running plugins, and the reaction to them.
//!
//! A version's watcher replaces its crashed worker; the life cycle replaces an instance in the
//! host's process, like a new version. Both are reported here and bounded by the same
//! [`Restarts`]. A plugin that was given up stays an error until a new version or a request.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hotmerge_meta::{Image, PluginMeta, PluginName};

use hotmerge_instance::{Failure, InProcess, Restarts, Verdict, failure::names, too_often};
use hotmerge_lifecycle::{Event, Slot, Ticket, Why};

use crate::{
    plugin::Version,
    record::events::PluginEvent,
    supervise::{supervisor::Supervisor, threads::Task},
};

/// First delay before a version is tried again for which the system lacked a resource …
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// … and the longest one.
const RETRY_LAST: Duration = Duration::from_secs(30);

/// Largest file that is read for the names of functions, in bytes.
const NAMED_BYTES: u64 = 64 << 20;

impl Supervisor {
    /// Records a failure in log, status and history.
    pub(crate) fn record_failure(
        self: &Arc<Self>,
        plugin: &PluginName,
        ticket: Ticket,
        failure: &Failure,
        state_age: Option<Duration>,
    ) {
        let what = failure.to_string();
        let crashed = PluginEvent::Crashed {
            stack: self.stack(ticket, failure),
            failure: failure.clone(),
            state_age,
        };
        self.tell_and_apply(plugin, [crashed], Some(Event::Crashed { ticket, what }));
    }

    /// The frames of a panic, by name if the plugin's file still exists and has symbols.
    fn stack(&self, ticket: Ticket, failure: &Failure) -> Vec<String> {
        if failure.frames.is_empty() {
            return Vec::new();
        }
        let target = self
            .state()
            .attempts
            .get(&ticket)
            .map(|attempt| attempt.target.clone());
        let file = target.and_then(|target| {
            let file = self
                .read_package(target.origin.package()?, &target.meta, NAMED_BYTES)
                .ok()?;
            is_its_file(&file, &target.meta).then_some(file)
        });
        names(&failure.frames, file.as_deref())
    }

    /// Reacts to a panic in the host's process, on its own thread, so that the caller need not wait.
    pub(crate) fn replace_after_panic(
        self: &Arc<Self>,
        plugin: &PluginName,
        ticket: Ticket,
        failure: Failure,
        state_age: Option<Duration>,
    ) {
        let purpose = format!("to replace it after it {failure}");
        let its = plugin.clone();
        let replace = move |host: &Arc<Self>| {
            host.record_failure(&its, ticket, &failure, state_age);
            host.schedule_replacement(&its, ticket, &failure);
        };
        self.in_background(plugin, Task::new("crash", purpose, replace));
    }

    /// Records that another worker has replaced one that crashed.
    pub(crate) fn recovered(
        &self,
        plugin: &PluginName,
        ticket: Ticket,
        state_age: Option<Duration>,
    ) {
        let mut state = self.state();
        let live = state.machine.slot(plugin.as_str()).and_then(Slot::live);
        let recovered = PluginEvent::Recovered {
            state_age,
            is_live: live.is_some_and(|live| live.ticket == ticket),
        };
        state.happened(plugin, recovered);
    }

    /// Gives up a version that has crashed too often.
    pub(crate) fn given_up(self: &Arc<Self>, plugin: &PluginName, ticket: Ticket, reason: String) {
        let told = PluginEvent::GivenUp {
            reason: reason.clone(),
        };
        self.tell_and_apply(plugin, [told], Some(Event::GivenUp { ticket, reason }));
    }

    /// Schedules a checkpoint after an instance's first call since the last one.
    pub(crate) fn save_later(&self, plugin: &PluginName, ticket: Ticket) {
        if let Some(period) = self.config().save(plugin) {
            let due = Instant::now() + period;
            self.state().health(plugin).save = Some((due, ticket));
            self.clock.wake_at(due);
        }
    }

    /// Schedules the replacement of a crashed instance in the host's process, unless it crashed too often.
    fn schedule_replacement(
        self: &Arc<Self>,
        plugin: &PluginName,
        ticket: Ticket,
        failure: &Failure,
    ) {
        let config = self.config().restart;
        let mut state = self.state();
        let slot = state.machine.slot(plugin.as_str());
        let Some(hash) = slot
            .and_then(Slot::live)
            .filter(|live| live.ticket == ticket)
            .map(|live| live.meta.hash)
        else {
            // A candidate is judged by its failed calls, and an old version ends anyway.
            return;
        };
        let health = state.health(plugin);
        if health.recent.as_ref().is_none_or(|(it, _)| *it != hash) {
            health.recent = Some((hash, Restarts::new(config)));
        }
        let verdict = health
            .recent
            .as_mut()
            .map_or(Verdict::Enough, |(_, it)| it.crashed(Instant::now()));
        if let Verdict::After(pause) = verdict
            && !pause.is_zero()
        {
            let due = Instant::now() + pause;
            health.replace = Some((due, ticket));
            self.clock.wake_at(due);
            return;
        }
        drop(state);
        match verdict {
            Verdict::After(_) => self.replace(plugin, ticket),
            Verdict::Enough => {
                let reason = too_often(config, plugin, failure);
                self.with_in_process(plugin, Some(ticket), |instance| {
                    instance.give_up(reason.clone())
                });
                self.given_up(plugin, ticket, reason);
            }
        }
    }

    /// Replaces an instance in the host's process by a new one.
    fn replace(self: &Arc<Self>, plugin: &PluginName, ticket: Ticket) {
        self.apply(plugin, Event::Replace { ticket });
    }

    /// Runs due work: replacements after a pause, and checkpoints. Returns when the next is due.
    pub(crate) fn attend(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let (mut replace, mut save) = (Vec::new(), Vec::new());
        let mut next: Option<Instant> = None;
        for (plugin, health) in &mut self.state().health {
            for (due, out) in [
                (&mut health.replace, &mut replace),
                (&mut health.save, &mut save),
            ] {
                match *due {
                    Some((at, ticket)) if at <= now => {
                        *due = None;
                        out.push((plugin.clone(), ticket));
                    }
                    Some((at, _)) => next = Some(next.map_or(at, |other| other.min(at))),
                    None => {}
                }
            }
        }
        for plugin in self.due_retries(now, &mut next) {
            self.rescan(&[plugin], Why::Asked);
        }
        for (plugin, ticket) in replace {
            self.replace(&plugin, ticket);
        }
        for (plugin, ticket) in save {
            self.save_in_background(&plugin, ticket);
        }
        next
    }

    /// The versions to try again now. Their number of retries is kept.
    fn due_retries(&self, now: Instant, next: &mut Option<Instant>) -> Vec<PluginName> {
        let mut due = Vec::new();
        for (plugin, health) in &mut self.state().health {
            match health.retry {
                Some((at, _)) if at <= now => due.push(plugin.clone()),
                Some((at, _)) => *next = Some(next.map_or(at, |other| other.min(at))),
                None => {}
            }
        }
        due
    }

    /// Schedules another try of a version for which the system lacked a resource, after a growing pause.
    pub(crate) fn retry_later(&self, plugin: &PluginName) {
        let mut state = self.state();
        let retry = &mut state.health(plugin).retry;
        let before = retry.map_or(0, |(_, tries)| tries);
        let pause = RETRY_FIRST * 2_u32.pow(before.min(6));
        let due = Instant::now() + pause.min(RETRY_LAST);
        *retry = Some((due, before + 1));
        drop(state);
        self.clock.wake_at(due);
    }

    /// Takes a checkpoint of an instance. The plugin may be slow.
    fn save_in_background(self: &Arc<Self>, plugin: &PluginName, ticket: Ticket) {
        let its = plugin.clone();
        let save = move |host: &Arc<Self>| {
            let Some(handle) = host.plugin(its.as_str()) else {
                return;
            };
            let saved = handle.live.peek(|version| {
                let version = version.filter(|version| version.ticket == ticket);
                version.map(|version| version.instance.refresh())
            });
            if let Ok(Some(Err(error))) = saved {
                let reason = error.to_string();
                let event = PluginEvent::StateNotSaved { reason };
                host.state().happened(&its, event);
            }
        };
        self.in_background(plugin, Task::new("save", "to save its state", save));
    }

    /// Notes that a replacement was refused: the instance continues, and its next panic counts again.
    pub(crate) fn not_replaced(&self, plugin: &PluginName) {
        self.with_in_process(plugin, None, InProcess::report_again);
    }

    /// Discards a checkpoint that a replacement failed to restore.
    pub(crate) fn forget_state(&self, plugin: &PluginName) {
        self.with_in_process(plugin, None, |instance| instance.checkpoint.forget());
    }

    /// Restarts those of these plugins that were given up, and returns them.
    pub(crate) fn revive(self: &Arc<Self>, plugins: &[PluginName]) -> Vec<PluginName> {
        let mut all = Vec::new();
        for plugin in plugins {
            let live = {
                let state = self.state();
                let live = state.machine.slot(plugin.as_str()).and_then(Slot::live);
                live.filter(|live| live.given_up).map(|live| live.ticket)
            };
            let (Some(ticket), Some(handle)) = (live, self.plugin(plugin.as_str())) else {
                continue;
            };
            self.state().happened(plugin, PluginEvent::Revived);
            let revived = handle.live.peek(|version| {
                let worker = version.and_then(|version| version.instance.worker());
                worker.map(|worker| worker.revive())
            });
            if revived == Ok(None) {
                self.replace(plugin, ticket);
            }
            all.push(plugin.clone());
        }
        all
    }

    /// Applies a function to the running version if it is in the host's process and, with a
    /// ticket, only if that attempt brought it up.
    fn with_in_process(
        &self,
        plugin: &PluginName,
        ticket: Option<Ticket>,
        body: impl Fn(&InProcess),
    ) {
        let is_it = |version: &&Version| ticket.is_none_or(|ticket| version.ticket == ticket);
        if let Some(handle) = self.plugin(plugin.as_str()) {
            handle.peek(|version| {
                Some(version)
                    .filter(is_it)?
                    .instance
                    .in_process()
                    .map(&body)
            });
        }
    }
}

/// The directory may have a newer version than the running one.
fn is_its_file(file: &[u8], meta: &PluginMeta) -> bool {
    Image::normalise(file.to_vec()).is_ok_and(|image| image.digest() == meta.hash)
}

#[cfg(test)]
mod tests;
