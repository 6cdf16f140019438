//! What went wrong with the plugins that run, and what follows from it.
//!
//! A worker is replaced by its own cell; an instance in the host's own process by the life cycle,
//! as a new version would replace it. Both are told of here, both are bounded by the same
//! [`Restarts`], and what was given up is an error until a new version comes or somebody asks.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Instant,
};

use hotmerge_meta::{Digest, Image, PluginMeta, PluginName};
use jiff::Timestamp;

use crate::{
    cell::{Restarts, Verdict},
    config::RestartConfig,
    failure::{self, Failure},
    hosted::Hosted,
    last_state::Saved,
    lifecycle::{Event, Slot, Ticket},
    plugin::Version,
    status::FailureStatus,
    supervisor::{State, Supervisor},
    threads::Task,
};

/// By whom an instance tells the host of itself.
#[derive(Clone)]
pub(crate) struct Reporter {
    plugin: PluginName,
    ticket: Ticket,
    host: Weak<Supervisor>,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter")
            .field("plugin", &self.plugin)
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

impl Reporter {
    pub(crate) fn new(plugin: PluginName, ticket: Ticket, host: Weak<Supervisor>) -> Self {
        Self {
            plugin,
            ticket,
            host,
        }
    }

    /// Whose instance it is.
    pub(crate) fn plugin(&self) -> &PluginName {
        &self.plugin
    }

    /// Its worker crashed. `saved` is what the next one goes on from.
    pub(crate) fn crashed(&self, failure: &Failure, saved: Option<&Saved>) {
        if let Some(host) = self.host.upgrade() {
            host.note_failure(&self.plugin, self.ticket, failure, saved);
        }
    }

    /// Its cell has started another worker, which takes the calls from here on.
    pub(crate) fn restarted(&self) {
        if let Some(host) = self.host.upgrade() {
            host.state().health(&self.plugin).restarts += 1;
        }
    }

    /// Its cell starts no other worker.
    pub(crate) fn given_up(&self, reason: String) {
        let ticket = self.ticket;
        self.apply(Event::GivenUp { ticket, reason });
    }

    /// Its cell tries again.
    pub(crate) fn revived(&self) {
        let ticket = self.ticket;
        self.apply(Event::Revived { ticket });
    }

    /// A panic was caught in the host's own process: on a thread of its own, because whoever
    /// called has waited long enough.
    pub(crate) fn caught(&self, failure: Failure, saved: Option<Saved>) {
        if let Some(host) = self.host.upgrade() {
            let ticket = self.ticket;
            let purpose = format!("to replace it after it {failure}");
            let plugin = self.plugin.clone();
            let see_to = move |host: &Arc<Supervisor>| {
                host.note_failure(&plugin, ticket, &failure, saved.as_ref());
                host.see_to(&plugin, ticket, &failure);
            };
            host.in_background(&self.plugin, Task::new("crash", purpose, see_to));
        }
    }

    /// It was called for the first time since its state was saved.
    pub(crate) fn called(&self) {
        if let Some(host) = self.host.upgrade()
            && let Some(period) = host.config.save(&self.plugin)
        {
            let due = Instant::now() + period;
            host.state().health(&self.plugin).save = Some((due, self.ticket));
            host.clock.wake_at(due);
        }
    }

    fn apply(&self, event: Event) {
        if let Some(host) = self.host.upgrade() {
            host.apply(&self.plugin, event);
        }
    }
}

/// What is known of one plugin's crashes.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// How often it was started again.
    pub(crate) restarts: u64,
    pub(crate) last: Option<FailureStatus>,
    /// Crashes of late in the host's own process, of this version.
    recent: Option<(Digest, Restarts)>,
    /// When an instance is to be replaced.
    replace: Option<(Instant, Ticket)>,
    /// When a state is to be saved.
    save: Option<(Instant, Ticket)>,
}

impl State {
    /// What is known of a plugin's crashes, to be added to.
    pub(crate) fn health(&mut self, plugin: &PluginName) -> &mut Health {
        self.health.entry(plugin.clone()).or_default()
    }
}

impl Supervisor {
    /// Writes a failure down: log, status, history.
    fn note_failure(
        self: &Arc<Self>,
        plugin: &PluginName,
        ticket: Ticket,
        failure: &Failure,
        saved: Option<&Saved>,
    ) {
        let stack = self.stack(ticket, failure);
        failure::log(plugin, failure, &stack);
        let age = saved.map(|saved| u64::try_from(saved.age().as_millis()).unwrap_or(u64::MAX));
        self.state().health(plugin).last = Some(FailureStatus {
            time: format!("{:.3}", Timestamp::now()),
            what: failure.what.clone(),
            method: failure.method.clone(),
            trace_id: failure.trace.clone(),
            stack,
            state_age_ms: age,
        });
        let what = failure.to_string();
        self.apply(plugin, Event::Crashed { ticket, what });
    }

    /// The frames of a panic, by name if the plugin's file is still there and has names.
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
                .read_package(target.origin.package()?, &target.meta)
                .ok()?;
            is_its_file(&file, &target.meta).then_some(file)
        });
        failure::names(&failure.frames, file.as_deref())
    }

    /// An instance in the host's own process crashed: sees that another takes its place.
    fn see_to(self: &Arc<Self>, plugin: &PluginName, ticket: Ticket, failure: &Failure) {
        let config = self.config.restart;
        let mut state = self.state();
        let slot = state.machine.slot(plugin.as_str());
        let Some(hash) = slot
            .and_then(Slot::live)
            .filter(|live| live.ticket == ticket)
            .map(|live| live.meta.hash)
        else {
            // A candidate is judged by its calls, and an old version ends anyway.
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
                tracing::error!(%plugin, "{reason}");
                self.with_hosted(plugin, Some(ticket), |hosted| {
                    hosted.give_up(reason.clone())
                });
                self.apply(plugin, Event::GivenUp { ticket, reason });
            }
        }
    }

    /// Puts another instance in the place of one in the host's own process.
    fn replace(self: &Arc<Self>, plugin: &PluginName, ticket: Ticket) {
        self.apply(plugin, Event::Replace { ticket });
    }

    /// Does what is due: replacements after a pause, and saves. Returns when the next is.
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
        for (plugin, ticket) in replace {
            self.replace(&plugin, ticket);
        }
        for (plugin, ticket) in save {
            self.save_in_background(&plugin, ticket);
        }
        next
    }

    /// Saves an instance's state for the case of a crash. The plugin may take its time.
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
                tracing::warn!(plugin = %its, "its state was not saved: {error}");
            }
        };
        self.in_background(plugin, Task::new("save", "to save its state", save));
    }

    /// A replacement was refused: the instance goes on, and its next panic counts again.
    pub(crate) fn not_replaced(&self, plugin: &PluginName) {
        self.with_hosted(plugin, None, Hosted::tell_again);
    }

    /// Forgets the state that a replacement did not take over.
    pub(crate) fn forget_state(&self, plugin: &PluginName) {
        self.with_hosted(plugin, None, |hosted| hosted.state.forget());
    }

    /// Starts again by hand what was given up of these; returns which that was.
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
            tracing::info!(%plugin, "started again by hand");
            let revived = handle.live.peek(|version| {
                let cell = version.and_then(|version| version.instance.cell());
                cell.map(|cell| cell.revive())
            });
            if revived == Ok(None) {
                self.replace(plugin, ticket);
            }
            all.push(plugin.clone());
        }
        all
    }

    /// Does something with what runs, if that is in the host's own process; with a ticket, only
    /// if that attempt has brought it up.
    fn with_hosted(&self, plugin: &PluginName, ticket: Option<Ticket>, body: impl Fn(&Hosted)) {
        let is_it = |version: &&Version| ticket.is_none_or(|ticket| version.ticket == ticket);
        if let Some(handle) = self.plugin(plugin.as_str()) {
            handle.peek(|version| Some(version).filter(is_it)?.instance.hosted().map(&body));
        }
    }
}

/// Why something is not started again.
pub(crate) fn too_often(config: RestartConfig, plugin: &PluginName, last: &Failure) -> String {
    format!(
        "it crashed more than {} times in {} s, and is not started again before a new version \
         comes or `hotmerge reload {plugin}` asks; last it {last}",
        config.most, config.within_s
    )
}

/// The directory may have moved on from what runs.
fn is_its_file(file: &[u8], meta: &PluginMeta) -> bool {
    Image::normalise(file.to_vec()).is_ok_and(|image| image.digest() == meta.hash)
}

#[cfg(test)]
mod tests;
