//! One attempt to bring a version up: read, verify, start, hand over the state.

mod error;

use std::{
    os::fd::OwnedFd,
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use hotmerge_instance::{Cancel, Instance, STATE_LIMIT, StartWith, failure};
use hotmerge_lifecycle::{Event, Later, Next, Origin, Refused, Target, Ticket};
use hotmerge_loader::{CallError, LoadError, Reply, Verified};
use hotmerge_meta::{Handover, PackageName, PluginMeta, PluginName, count};
use tracing::{debug, trace};

use self::error::{RunningError, StateError, StoredError};
use crate::{
    Config,
    find::{
        judge,
        scan::{open_dir, open_package},
        signed::{self, Signed},
        unverified::Unverified,
    },
    record::{
        events::{Ending, PluginEvent},
        store::Store,
    },
    supervise::{
        jobs::{Job, KEEPS_PLACE, Waits},
        services::Services,
        spans,
        state::{Attempt, Progress},
        supervisor::Supervisor,
        threads::Task,
    },
};

/// The cause of a candidate's failure to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The same bytes would not start again.
    Plugin,
    /// It did not get the running version's state, for whatever reason.
    Handover,
    /// The system lacks a resource at the moment.
    System,
    /// The dynamic loader still holds the previous instance.
    Loader,
}

/// What an attempt has for the start of its version.
struct Begun {
    config: Arc<Config>,
    generation: Arc<AtomicU64>,
    break_off: Arc<Cancel>,
}

impl Fault {
    fn of(error: &LoadError) -> Self {
        match error {
            LoadError::NoProcess(_) | LoadError::Seal { .. } => Self::System,
            LoadError::Occupied(_) => Self::Loader,
            _ => Self::Plugin,
        }
    }
}

impl Supervisor {
    /// Queues a job.
    pub(crate) fn submit(self: &Arc<Self>, job: Job) {
        let plugin = job.plugin().clone();
        if let Some(Waits) = self.jobs.submit(job, || self.add_thread(&plugin)) {
            self.clock.wake_at(Instant::now() + KEEPS_PLACE);
        }
    }

    /// Lets slow jobs continue without a place while others wait. Returns when to call it again.
    pub(crate) fn make_room(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        self.jobs.make_room(now, |plugin| self.add_thread(plugin))
    }

    /// Abandons an attempt that a thread is working on.
    pub(crate) fn write_off(self: &Arc<Self>, plugin: &PluginName, ticket: Ticket) {
        self.jobs.write_off(ticket, || self.add_thread(plugin));
    }

    /// Ends the worker of an attempt that nobody wants any more, so that the attempt's thread returns.
    pub(crate) fn break_off(&self, ticket: Ticket) {
        let attempt = self
            .state()
            .attempts
            .get(&ticket)
            .map(|it| Arc::clone(&it.break_off));
        if let Some(break_off) = attempt {
            break_off.cancel();
        }
    }

    fn add_thread(self: &Arc<Self>, plugin: &PluginName) {
        let purpose = "to start candidates and to write down what runs";
        let work = |host: &Arc<Self>| host.jobs.work(|job| host.work(job));
        self.in_background(plugin, Task::new("candidate", purpose, work));
    }

    fn work(self: &Arc<Self>, job: &Job) {
        match job {
            Job::BringUp(_, ticket) => self.bring_up(*ticket),
            Job::Persist(plugin) => {
                self.persist(plugin);
                self.persisted();
            }
        }
    }

    /// Advances an attempt as far as currently possible.
    fn bring_up(self: &Arc<Self>, ticket: Ticket) {
        let mut state = self.state();
        let Some(attempt) = state.attempts.get_mut(&ticket) else {
            return;
        };
        let target = attempt.target.clone();
        let verified = attempt.take_verified();
        drop(state);
        let _span = spans::attempt(&target.meta.name, ticket);
        match verified {
            Some(verified) => self.start(ticket, &target, verified),
            None => self.look_at(ticket, &target),
        }
    }

    fn look_at(self: &Arc<Self>, ticket: Ticket, target: &Target) {
        let meta = &target.meta;
        let (verified, signed) = match self.verify(target) {
            Ok(verified) => verified,
            Err(Unverified::Missing(reason)) => {
                if let Some(package) = target.origin.package() {
                    self.scanner().lost(package, &meta.name);
                }
                return self.differs(&meta.name, ticket, reason);
            }
            Err(Unverified::Differs(reason)) => return self.differs(&meta.name, ticket, reason),
            // The meta may be corrected with the same hash; reading it again runs no code.
            Err(Unverified::Refused(reason)) => return self.fail(ticket, meta, reason, false),
            Err(Unverified::NoRoom(reason)) => {
                self.fail(ticket, meta, reason, false);
                return self.retry_later(&meta.name);
            }
        };
        if let Some(signed) = &signed {
            debug!(target: "hotmerge::plugin", "signed by {}", signed.signer());
        }
        trace!(target: "hotmerge::plugin", "verified: the file has the hash of its meta");
        // The attempt may have to wait, and may continue on another thread before this returns.
        if let Some(attempt) = self.state().attempts.get_mut(&ticket) {
            attempt.progress = Progress::Verified(verified);
            attempt.signed = signed.map(Arc::new);
        }
        let next = self.advance(&meta.name, Event::Verified { ticket });
        if next == Some(Later::Start(ticket)) {
            self.bring_up(ticket);
        } else {
            self.state().forget(&meta.name, ticket);
        }
    }

    fn fail(
        self: &Arc<Self>,
        ticket: Ticket,
        meta: &Arc<PluginMeta>,
        reason: String,
        lasting: bool,
    ) {
        let refused = Refused {
            meta: Arc::clone(meta),
            reason: failure::message(reason),
            lasting,
        };
        self.apply(&meta.name, Event::Failed { ticket, refused });
        self.state().forget(&meta.name, ticket);
    }

    fn verify(&self, target: &Target) -> Result<(Verified, Option<Signed>), Unverified> {
        let meta = &target.meta;
        trace!(target: "hotmerge::plugin", hash = meta.hash.short(), origin = ?target.origin, "verifying");
        judge::is_for_this_target(meta)?;
        match &target.origin {
            Origin::Package(package) => {
                let package = self.open(package)?;
                let signed = self.check_signature(&package, target)?;
                let verified = judge::verify(package, meta, &self.config().trust())?;
                Ok((verified, signed))
            }
            Origin::Store => {
                let text = self.store.as_ref().and_then(|store| store.signed(meta));
                let signed = signed::check_kept(text, meta, &self.config())?;
                Ok((self.verify_stored(meta)?, signed))
            }
            Origin::Running(_) => {
                let verified = self.verify_running(meta);
                let verified = verified.map_err(|error| Unverified::Refused(error.to_string()))?;
                let state = self.state();
                let signed = state.live_signed(meta.name.as_str());
                Ok((verified, signed.map(|it| Signed::clone(it))))
            }
        }
    }

    /// Who signed a version of a package. A version older than one that has run needs the operator's order.
    fn check_signature(
        &self,
        package: &OwnedFd,
        target: &Target,
    ) -> Result<Option<Signed>, Unverified> {
        let (meta, config) = (&target.meta, self.config());
        let signed = signed::check(package, meta, &config)?;
        let is_asked = config.requires_signature(&meta.name) && !target.is_ordered;
        if let (Some(signed), true) = (&signed, is_asked)
            && let Some(newest) = self.state().newest.get(&meta.name)
        {
            signed.follows(meta, newest, config.signed_order)?;
        }
        Ok(signed)
    }

    fn verify_stored(&self, meta: &PluginMeta) -> Result<Verified, Unverified> {
        let lost = match self.store.as_ref() {
            None => "this host keeps no versions; set `state_dir`".to_owned(),
            Some(store) => match verify_stored(store, meta) {
                Ok(verified) => return Ok(verified),
                Err(StoredError::NoRoom(error)) => {
                    return Err(Unverified::NoRoom(error.to_string()));
                }
                Err(error @ StoredError::Unfit(_)) => {
                    return Err(Unverified::Refused(error.to_string()));
                }
                Err(lost @ (StoredError::Unreadable(_) | StoredError::Damaged(_))) => {
                    format!("{lost}; stage it again")
                }
            },
        };
        // A restarting version is running, and is stored again when it goes live.
        let running = self.verify_running(meta);
        running.map_err(|_| Unverified::Refused(lost))
    }

    /// Verifies a copy of the running image: the dynamic loader would treat the same file as the
    /// same object.
    fn verify_running(&self, meta: &PluginMeta) -> Result<Verified, RunningError> {
        Ok(Verified::new(self.image(meta)?, meta)?)
    }

    pub(crate) fn read_package(
        &self,
        package: &PackageName,
        meta: &PluginMeta,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, Unverified> {
        let trust = self.config().trust();
        judge::read(self.open(package)?, meta, limit_bytes, &trust)
    }

    fn open(&self, package: &PackageName) -> Result<OwnedFd, Unverified> {
        let trust = self.config().trust();
        let root = open_dir(&self.plugin_dir, &trust)?;
        Ok(open_package(&root, package, &trust)?)
    }

    fn start(self: &Arc<Self>, ticket: Ticket, target: &Target, verified: Verified) {
        let meta = &target.meta;
        let now = Instant::now();
        let Some(Begun {
            config,
            generation,
            break_off,
        }) = self.begin_start(ticket, target, now)
        else {
            return;
        };
        let told = match config.plugin_json(&meta.name) {
            Ok(told) => told,
            Err(error) => return self.fail(ticket, meta, error.to_string(), true),
        };
        self.clock
            .wake_at(now + self.start_limit(&meta.name, &config));
        trace!(target: "hotmerge::plugin", version = %meta.version, "starting");
        let host = Arc::downgrade(self);
        let services = Services::new(meta, ticket, generation, host);
        let services = Arc::new(services);
        let with = StartWith {
            settings: &config.settings(),
            config: &told,
            break_off: &break_off,
        };
        let result = Instance::start(&self.workers, services, meta, verified, &with)
            .map_err(|error| (error.to_string(), Fault::of(&error)))
            .and_then(
                |instance| match self.prepare(target, &config, &instance, &break_off) {
                    Ok(next) => Ok((instance, next)),
                    Err(error) => {
                        self.discard(&meta.name, instance);
                        Err((error.to_string(), Fault::Handover))
                    }
                },
            );
        let mut state = self.state();
        if result.is_err() && break_off.is_cancelled() {
            let ended = PluginEvent::Ending(Ending::CandidateEnded);
            state.happened(&meta.name, ended);
        }
        let Some(attempt) = state.attempts.get_mut(&ticket) else {
            drop(state);
            if let Ok((instance, _)) = result {
                self.discard(&meta.name, instance);
            }
            return;
        };
        match result {
            Ok((instance, next)) => {
                trace!(target: "hotmerge::plugin", ?next, "started, and has checked itself");
                attempt.progress = Progress::Ready(instance);
                state.health(&meta.name).retry = None;
                drop(state);
                let next = self.advance(&meta.name, Event::Started { ticket, next });
                if next == Some(Later::HandOver(ticket)) {
                    self.hand_over(ticket, meta);
                }
            }
            Err((reason, fault)) => {
                attempt.progress = Progress::Failed;
                drop(state);
                match fault {
                    Fault::Handover => self.not_handed_over(ticket, meta, &reason),
                    Fault::Plugin => self.fail(ticket, meta, reason, true),
                    Fault::System | Fault::Loader => self.fail(ticket, meta, reason, false),
                }
                if fault == Fault::System {
                    self.retry_later(&meta.name);
                }
            }
        }
    }

    /// Notes that an attempt's code runs from now on, and with which configuration: the one in force, or, for
    /// the replacement of a crashed instance, the one that it had accepted.
    fn begin_start(&self, ticket: Ticket, target: &Target, now: Instant) -> Option<Begun> {
        let mut state = self.state();
        let live = match &target.origin {
            Origin::Running(_) => state.live_config(target.meta.name.as_str()),
            Origin::Package(_) | Origin::Store => None,
        };
        let config = live.unwrap_or_else(|| self.config());
        let attempt = state.attempts.get_mut(&ticket)?;
        attempt.config = Arc::clone(&config);
        attempt.progress = Progress::Starting(now);
        Some(Begun {
            config,
            generation: Arc::clone(&attempt.generation),
            break_off: Arc::clone(&attempt.break_off),
        })
    }

    /// Determines the steps between the start of a candidate and its first call. State of a live
    /// hand-over is copied here, while calls continue.
    fn prepare(
        &self,
        target: &Target,
        config: &Config,
        candidate: &Instance,
        break_off: &Cancel,
    ) -> Result<Next, StateError> {
        let name = &target.meta.name;
        // An operator's order is not a trial.
        let canary = config.canary(name).filter(|_| !target.is_ordered);
        let (Some(live), Some(plugin)) = (
            self.state().live_meta(name.as_str()).cloned(),
            self.plugin(name.as_str()),
        ) else {
            return Ok(Next::Switch);
        };
        if !target.takes_state {
            return Ok(canary.map_or(Next::Switch, |_| Next::Try));
        }
        let mut state = Reply::with_limit(STATE_LIMIT);
        let saved = plugin.live.with(|live| {
            let Some(live) = live else {
                return (false, Err(Box::new(CallError::Unsupported)));
            };
            (live.instance.is_failing(), live.instance.save(&mut state))
        });
        let (is_failing, saved) = saved?;
        // A crashed version is not a baseline for a canary.
        let canary = canary.filter(|_| !is_failing);
        match saved {
            Err(error) if *error == CallError::Unsupported => Ok(match canary {
                Some(_) => Next::Try,
                None => Next::Switch,
            }),
            Err(error) => Err(StateError::NotSaved(error)),
            Ok(_) if canary.is_some() => Err(StateError::Shared),
            // A checkpoint from before a crash does not change while calls continue.
            Ok(_) if live.handover == Handover::Pause && !is_failing => Ok(Next::HandOver),
            Ok(from) => candidate
                .restore(&from, state.bytes(), break_off)
                .map(|()| Next::Switch)
                .map_err(|error| {
                    // The same version does not get it twice.
                    if matches!(target.origin, Origin::Running(_)) {
                        self.forget_state(name);
                    }
                    StateError::NotRestored(error)
                }),
        }
    }

    /// Hands the live version's state to a candidate while calls wait. In the end either the
    /// candidate has it and goes live, or the old version continues unchanged.
    fn hand_over(self: &Arc<Self>, ticket: Ticket, meta: &Arc<PluginMeta>) {
        let began = Instant::now();
        let mut state = self.state();
        let Some(attempt) = state.attempts.get_mut(&ticket) else {
            return;
        };
        let limit = attempt.config.handover(&meta.name);
        let deadline = began + limit;
        let break_off = Arc::clone(&attempt.break_off);
        attempt.paused = Some(began);
        let instance = attempt.take_ready(Progress::HandingOver(None));
        drop(state);
        let (Some(instance), Some(plugin)) = (instance, self.plugin(meta.name.as_str())) else {
            return self.fail(ticket, meta, "the live version is gone".to_owned(), false);
        };
        trace!(target: "hotmerge::plugin", "handing the state over: new calls wait");
        if let Err(calls) = plugin.pause(deadline) {
            let ms = limit.as_millis();
            let calls = count(calls as u64, "call");
            let reason = format!("{calls} on the running version did not return within {ms} ms");
            self.not_handed_over(ticket, meta, &reason);
            return self.discard(&meta.name, instance);
        }
        // From here on plugin code may be slow: the clock then opens the gate.
        if let Some(attempt) = self.state().attempts.get_mut(&ticket) {
            attempt.progress = Progress::HandingOver(Some(deadline));
        }
        self.clock.wake_at(deadline);
        trace!(target: "hotmerge::plugin", "the last call on the running version has returned");
        let mut bytes = Reply::with_limit(STATE_LIMIT);
        let handed = plugin
            .save(&mut bytes)
            .map_err(StateError::NotSaved)
            .and_then(|from| {
                let len = bytes.bytes().len();
                trace!(target: "hotmerge::plugin", from, bytes = len, "the state is saved");
                instance
                    .restore(&from, bytes.bytes(), &break_off)
                    .map_err(StateError::NotRestored)
            });
        let mut state = self.state();
        let Some(attempt) = state.attempts.get_mut(&ticket) else {
            drop(state);
            return self.discard(&meta.name, instance);
        };
        match handed {
            Ok(()) => {
                trace!(target: "hotmerge::plugin", "the candidate restored the state");
                attempt.progress = Progress::Ready(instance);
                drop(state);
                self.apply(&meta.name, Event::HandedOver { ticket });
            }
            Err(error) => {
                attempt.progress = Progress::Failed;
                drop(state);
                self.not_handed_over(ticket, meta, &error.to_string());
                self.discard(&meta.name, instance);
            }
        }
    }

    /// Refuses a candidate that did not get the running version's state, or tries it again without the state
    /// if the operator permits that.
    fn not_handed_over(self: &Arc<Self>, ticket: Ticket, meta: &Arc<PluginMeta>, reason: &str) {
        let reason = failure::message(reason.to_owned()) + &all_the_same(&meta.name);
        let refused = Refused {
            meta: Arc::clone(meta),
            reason,
            lasting: true,
        };
        let state = self.state();
        let event = match state.attempts.get(&ticket) {
            Some(attempt) => self.unless_discarded(attempt, ticket, refused),
            None => Event::Failed { ticket, refused },
        };
        drop(state);
        self.apply(&meta.name, event);
        self.state().forget(&meta.name, ticket);
    }

    /// The next step for a candidate that did not get the running version's state.
    pub(crate) fn unless_discarded(
        &self,
        attempt: &Attempt,
        ticket: Ticket,
        refused: Refused,
    ) -> Event {
        // The replacement of a crashed instance has only the state of the last checkpoint.
        let is_update = !matches!(attempt.target.origin, Origin::Running(_));
        match is_update && self.config().discards_state(&refused.meta.name) {
            true => Event::NotHandedOver { ticket, refused },
            false => Event::Failed { ticket, refused },
        }
    }
}

/// The advice for a version that blocks its replacement.
pub(crate) fn all_the_same(plugin: &PluginName) -> String {
    format!("; `hotmerge reload {plugin} --without-state` replaces it without its state")
}

fn verify_stored(store: &Store, meta: &PluginMeta) -> Result<Verified, StoredError> {
    Ok(Verified::new(store.image(&meta.hash)?, meta)?)
}
