//! One version of a plugin in a worker, as its callers see it.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicU32},
    time::{Duration, Instant},
};

use hotmerge_abi::CallContext;
use hotmerge_loader::{CallError, Reply, Verified};
use hotmerge_meta::{PluginMeta, control::WorkerStatus};
use hotmerge_wire::{NoAnswer, Request, after_ns, now_ns, op};
use tracing::{level_filters::LevelFilter, span::EnteredSpan};

use crate::{
    call::Call,
    cancel::{Cancel, Wake},
    checkpoint::{Checkpoint, STATE_LIMIT},
    settings::{PluginSettings, StartWith},
    upward::{Report, Upward},
    worker::{
        error::LaunchError,
        exchange::{REASON_LIMIT, Unanswered, exchange},
        machine::Availability,
        output::PluginLog,
        process::{Callers, Link, event},
        shared::Workers,
        usage::usage,
    },
};

/// What callers, the owner and the thread of a worker share.
#[derive(Debug)]
pub(super) struct WorkerState {
    pub(super) availability: Availability,
    /// The plugin is being torn down: whatever happens to the worker now is its end.
    pub(super) ending: bool,
    /// The worker is to be ended at once.
    pub(super) stop: bool,
    /// Try again although it was given up.
    pub(super) revive: bool,
    pub(super) missing: Vec<String>,
    /// Why the next worker is not there yet, if that is the system's fault.
    pub(super) waiting: Option<String>,
    /// From the start of the process to its being fit to take calls.
    pub(super) start: Duration,
}

/// One version of a plugin in a worker.
#[derive(Debug)]
pub struct Worker {
    pub(super) workers: Arc<Workers>,
    pub(super) upward: Arc<dyn Upward>,
    pub(super) meta: Arc<PluginMeta>,
    /// Threads that carry its calls to other plugins.
    pub(super) forwarders: AtomicU32,
    pub(super) log: PluginLog,
    pub(super) image: Verified,
    pub(super) libraries: Vec<String>,
    pub(super) config: String,
    pub(super) settings: PluginSettings,
    pub(crate) checkpoint: Checkpoint,
    pub(super) live: RwLock<Option<Arc<Callers>>>,
    pub(super) state: Mutex<WorkerState>,
    pub(super) changed: Condvar,
    pub(super) wake: OwnedFd,
}

impl Worker {
    /// A worker of which no process has been started.
    ///
    /// # Errors
    /// If the system has no descriptor for it.
    pub(super) fn new(
        workers: &Arc<Workers>,
        upward: Arc<dyn Upward>,
        meta: &Arc<PluginMeta>,
        image: Verified,
        libraries: Vec<String>,
        with: &StartWith<'_>,
    ) -> Result<Arc<Self>, LaunchError> {
        let wake = event().map_err(LaunchError::at("create an event descriptor"))?;
        Ok(Arc::new(Self {
            workers: Arc::clone(workers),
            log: PluginLog::new(meta.name.clone(), Arc::clone(&upward)),
            upward,
            meta: Arc::clone(meta),
            forwarders: AtomicU32::new(0),
            image,
            libraries,
            config: with.config.to_owned(),
            settings: with.settings.of(meta.name.as_str()).clone(),
            checkpoint: Checkpoint::default(),
            live: RwLock::new(None),
            state: Mutex::new(WorkerState {
                availability: Availability::Starting,
                ending: false,
                stop: false,
                revive: false,
                missing: Vec::new(),
                waiting: None,
                start: Duration::ZERO,
            }),
            changed: Condvar::new(),
            wake,
        }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, WorkerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the watching thread check for requests.
    pub(super) fn wake_up(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Lets callers find the worker as it is, and why the next process waits, if it does.
    pub(super) fn publish(&self, availability: Availability, waiting: Option<&str>) {
        let mut state = self.state();
        state.availability = availability;
        state.waiting = waiting.map(|reason| format!("no replacement could start yet: {reason}"));
        drop(state);
        self.changed.notify_all();
    }

    /// Lets a process take the calls.
    pub(super) fn go_live(&self, link: Arc<Callers>) {
        let state = self.state();
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(link);
        drop(state);
        self.changed.notify_all();
    }

    /// Keeps new calls from the live process.
    pub(super) fn take_out(&self) {
        let _state = self.state();
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes how the start of a process went.
    pub(super) fn has_started(&self, missing: Vec<String>, took: Duration) {
        let mut state = self.state();
        state.missing = missing;
        state.start = took;
    }

    /// Calls a method.
    ///
    /// # Errors
    /// What the plugin answered instead of a reply, or what became of its worker.
    pub fn call(
        self: &Arc<Self>,
        call: &Call<'_>,
        reply: &mut Reply,
    ) -> Result<(), Box<CallError>> {
        let Call {
            context,
            method,
            request,
            media,
            cancel,
            describes,
        } = *call;
        let _span = self.call_span(method, context);
        if self.checkpoint.is_unnoted() && self.checkpoint.note_call() {
            self.upward.report(Report::FirstCallSinceSave);
        }
        let with_media = (!media.is_empty()).then(|| media.join(method));
        let (op, head) = match &with_media {
            _ if describes => (op::DESCRIBE, ""),
            Some(head) => (op::CALL_MEDIA, head.as_str()),
            None => (op::CALL, method),
        };
        let mut may_retry = true;
        loop {
            let link = self.link(context, cancel)?;
            let give_up_ns = match (context.deadline_ns, self.workers.call_limit()) {
                (0, Some(limit)) => after_ns(limit),
                _ => 0,
            };
            let asked = Request {
                op,
                context,
                method: head,
                bytes: request,
                reply_limit: reply.limit(),
                give_up_ns,
                cancel: cancel.map(Cancel::mark),
                on_behalf_of: cancel.and_then(Cancel::holder),
            };
            let mut ask = || exchange(&link, &asked, reply);
            let outcome = match cancel {
                Some(cancel) => cancel
                    .wait_in(Arc::clone(&link) as _, ask)
                    .unwrap_or(Err(Unanswered::Failed(NoAnswer::Cancelled))),
                None => ask(),
            };
            tracing::trace!(target: "hotmerge::worker", pid = link.pid, ?outcome, "answered");
            let failure = match outcome {
                Ok(()) => return Ok(()),
                Err(Unanswered::Refused(error)) => return Err(Box::new(error)),
                Err(Unanswered::Failed(failure)) => failure,
            };
            match failure {
                NoAnswer::Gone { begun } => {
                    if may_retry && (!begun || describes || self.is_idempotent(method)) {
                        may_retry = false;
                        continue;
                    }
                    return Err(Box::new(CallError::Crashed(
                        link.end().unwrap_or_else(|| "has ended".into()),
                    )));
                }
                other => return Err(Box::new(self.failed(&link, other))),
            }
        }
    }

    /// Only if it is logged: even a disabled span costs some nanoseconds.
    #[inline]
    fn call_span(&self, method: &str, context: &CallContext) -> Option<EnteredSpan> {
        let is_traced = LevelFilter::current() >= LevelFilter::TRACE;
        is_traced.then(|| {
            tracing::trace_span!(
                target: "hotmerge::worker",
                "call",
                plugin = %self.log.plugin(),
                method,
                trace_id = crate::failure::hex(&context.trace_id)
            )
            .entered()
        })
    }

    fn is_idempotent(&self, method: &str) -> bool {
        self.settings.idempotent.iter().any(|name| name == method)
    }

    /// Ends the worker at once, whatever it does.
    pub(super) fn stop(&self) {
        self.state().stop = true;
        self.changed.notify_all();
        self.wake_up();
    }

    /// A waiting caller; the worker is killed if the wait is cancelled.
    pub(super) fn broken_off(self: &Arc<Self>) -> Arc<dyn Wake> {
        Arc::new(BrokenOff(Arc::clone(self)))
    }

    /// Orders the end of a process that cannot be trusted any more.
    pub(super) fn order_kill(&self, link: &Link, why: String) {
        link.order_kill(why);
        self.wake_up();
    }

    /// Why a process that still runs gave no answer.
    fn failed(&self, link: &Link, failure: NoAnswer) -> CallError {
        match failure {
            // It may hang; the watching thread finds out.
            NoAnswer::Deadline => {
                self.wake_up();
                CallError::Deadline
            }
            NoAnswer::Cancelled => {
                self.wake_up();
                CallError::Cancelled
            }
            NoAnswer::TooLarge { .. } => CallError::BadRequest(failure.to_string()),
            NoAnswer::Broken(what) => {
                let what = format!("broke the protocol: {what}");
                self.order_kill(link, what.clone());
                CallError::Crashed(what)
            }
            other => CallError::Crashed(other.to_string()),
        }
    }

    /// The worker that takes calls. While one is being started, waits for it.
    fn link(
        self: &Arc<Self>,
        context: &CallContext,
        cancel: Option<&Cancel>,
    ) -> Result<Arc<Callers>, CallError> {
        if let Some(link) = &*self.live.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(link));
        }
        match cancel {
            Some(cancel) => cancel
                .wait_in(Arc::clone(self) as _, || {
                    self.next_link(context, &|| cancel.is_cancelled())
                })
                .unwrap_or(Err(CallError::Cancelled)),
            None => self.next_link(context, &|| false),
        }
    }

    /// Waits for the worker that is being started.
    fn next_link(
        &self,
        context: &CallContext,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Arc<Callers>, CallError> {
        let mut patience = self.workers.settings().start_limit;
        if context.deadline_ns != 0 {
            let left = context.deadline_ns.saturating_sub(now_ns());
            patience = patience.min(Duration::from_nanos(left));
        }
        let limit = Instant::now() + patience;
        let mut state = self.state();
        loop {
            match &state.availability {
                Availability::Serving => {
                    let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
                    if let Some(link) = &*live {
                        return Ok(Arc::clone(link));
                    }
                }
                Availability::Starting => {}
                Availability::Restarting(why) => {
                    return Err(CallError::Unavailable(format!(
                        "its worker {why}; a replacement starts soon"
                    )));
                }
                Availability::GivenUp(why) => {
                    return Err(CallError::Unavailable(why.clone()));
                }
                Availability::Ended(end) => {
                    return Err(CallError::Unavailable(end.to_string()));
                }
            }
            if is_cancelled() {
                return Err(CallError::Cancelled);
            }
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CallError::Deadline);
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Requests something other than a method call from the live process.
    pub(super) fn ask(
        &self,
        op: u32,
        method: &str,
        bytes: &[u8],
        limit: Duration,
        reply: &mut Reply,
    ) -> Result<(), Box<CallError>> {
        let context = CallContext {
            size: size_of::<CallContext>() as u32,
            ..CallContext::default()
        };
        if !matches!(self.state().availability, Availability::Serving) {
            return Err(CallError::Unavailable("no worker runs".into()).into());
        }
        // A worker is said to serve a moment before calls reach it.
        let until = CallContext {
            deadline_ns: after_ns(limit),
            ..context
        };
        let link = self.next_link(&until, &|| false)?;
        let asked = Request {
            op,
            context: &context,
            method,
            bytes,
            reply_limit: reply.limit(),
            give_up_ns: after_ns(limit),
            cancel: None,
            on_behalf_of: None,
        };
        exchange(&link, &asked, reply).map_err(|unanswered| {
            Box::new(match unanswered {
                Unanswered::Refused(error) => error,
                Unanswered::Failed(NoAnswer::Gone { .. }) => {
                    CallError::Crashed(link.end().unwrap_or_else(|| "has ended".into()))
                }
                Unanswered::Failed(failure) => self.failed(&link, failure),
            })
        })
    }

    /// The verified bytes that it runs, as a file to read from offset 0.
    pub fn image(&self) -> io::Result<File> {
        Ok(File::from(self.image.memory().try_clone_to_owned()?))
    }

    /// Asks for the state, and remembers it for the case of a crash. While no worker runs it is
    /// the last one that was saved. Returns the version that saved it.
    pub fn save(&self, state: &mut Reply) -> Result<String, Box<CallError>> {
        if !matches!(self.state().availability, Availability::Serving) {
            return self.checkpoint.hand_out(state);
        }
        let patience = self.workers.settings().of(self.meta.name.as_str()).teardown;
        self.ask(op::SAVE, "", &[], patience, state)?;
        let version = self.meta.version.to_string();
        self.checkpoint.remember(&version, state.bytes());
        Ok(version)
    }

    /// Saves the state for the case of a crash.
    pub fn refresh(&self) -> Result<(), Box<CallError>> {
        if !matches!(self.state().availability, Availability::Serving) {
            return Ok(());
        }
        let mut state = Reply::with_limit(STATE_LIMIT);
        self.checkpoint.refresh(|| self.save(&mut state).map(drop))
    }

    /// Hands a state over, and remembers it for the case of a crash. `break_off` ends the worker.
    pub fn restore(
        self: &Arc<Self>,
        from: &str,
        state: &[u8],
        break_off: &Cancel,
    ) -> Result<(), Box<CallError>> {
        let limit = self.workers.settings().start_limit;
        let mut reply = Reply::with_limit(REASON_LIMIT);
        let ask = || self.ask(op::RESTORE, from, state, limit, &mut reply);
        let restored = break_off.wait_in(self.broken_off(), ask);
        restored.unwrap_or_else(|_| Err(Box::new(CallError::Cancelled)))?;
        self.checkpoint.remember(from, state);
        Ok(())
    }

    /// Tries again if it was given up.
    pub fn revive(&self) {
        let mut state = self.state();
        if matches!(state.availability, Availability::GivenUp(_)) {
            state.revive = true;
            drop(state);
            self.wake_up();
        }
    }

    /// Whether it crashed too often.
    pub fn is_given_up(&self) -> bool {
        matches!(self.state().availability, Availability::GivenUp(_))
    }

    /// Why the next worker is not there yet, if that is the system's fault.
    pub fn waiting(&self) -> Option<String> {
        self.state().waiting.clone()
    }

    /// The phase of its life, for `hotmerge debug`.
    pub fn phase(&self) -> String {
        match &self.state().availability {
            Availability::Starting => "starting".to_owned(),
            Availability::Serving => "serving".to_owned(),
            Availability::Restarting(why) => format!("restarting: it {why}"),
            Availability::GivenUp(why) => format!("given up: {why}"),
            Availability::Ended(end) => format!("ended: {end}"),
        }
    }

    /// For operators.
    pub fn status(&self) -> WorkerStatus {
        let link = self
            .live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let state = self.state();
        let mut status = WorkerStatus {
            pid: link.as_ref().map(|link| link.pid),
            degraded: state.missing.clone(),
            start_ms: state.start.as_secs_f64() * 1e3,
            ..WorkerStatus::default()
        };
        if let Some(link) = link {
            (status.memory_bytes, status.cpu_ms) = usage(link.pid);
            status.log_dropped = link.caller.dropped_logs();
        }
        status
    }
}

/// Callers wait here for the next process.
impl Wake for Worker {
    fn wake(&self, _: &hotmerge_wire::Cancel) {
        // The thread that holds it may be between checking the mark and going to sleep.
        drop(self.state());
        self.changed.notify_all();
    }
}

/// A worker that is ended if the waiting for it is broken off.
#[derive(Debug)]
struct BrokenOff(Arc<Worker>);

impl Wake for BrokenOff {
    fn wake(&self, _: &hotmerge_wire::Cancel) {
        self.0.stop();
    }
}

/// Callers wait on the link to a worker for its answer.
impl Wake for Callers {
    fn wake(&self, mark: &hotmerge_wire::Cancel) {
        self.caller.cancel(mark);
    }
}

#[cfg(test)]
mod tests;
