//! The end of an old version: its last call returns, it is torn down, its memory is unmapped.
//!
//! In-process code cannot be killed. A version that does not end in time is kept, counted and
//! shown in the status, and never unmapped under a running call.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use hotmerge_instance::{Instance, spawn};
use hotmerge_lifecycle::{Event, Ticket};
use hotmerge_loader::Unloaded;
use hotmerge_meta::PluginName;
use tracing::trace;

use crate::{
    record::events::{Ending, PluginEvent},
    supervise::{spans, state::Progress, supervisor::Supervisor, threads::Task},
};

/// How long the process of a worker may take to exit after its teardown, or to be killed.
const KILL: Duration = Duration::from_secs(2);

impl Supervisor {
    pub(crate) fn end_in_background(self: &Arc<Self>, name: &PluginName, ticket: Ticket) {
        let its = name.clone();
        let drain = move |host: &Arc<Self>| host.drain(&its, ticket);
        self.in_background(name, ending("to end an old version", drain));
    }

    pub(crate) fn discard_in_background(self: &Arc<Self>, name: &PluginName, ticket: Ticket) {
        let ready = {
            let mut state = self.state();
            let attempt = state.attempts.remove(&ticket);
            attempt.and_then(|mut attempt| attempt.take_ready(Progress::Ending))
        };
        if let Some(instance) = ready {
            let its = name.clone();
            let discard = move |host: &Arc<Self>| host.discard(&its, instance);
            self.in_background(name, ending("to end a candidate", discard));
        }
    }

    /// Ends an instance that never took a call.
    pub(crate) fn discard(self: &Arc<Self>, name: &PluginName, instance: Instance) {
        let ended = PluginEvent::Ending(Ending::CandidateEnded);
        self.state().happened(name, ended);
        self.tear_down(name, instance, None);
    }

    fn drain(self: &Arc<Self>, name: &PluginName, ticket: Ticket) {
        let Some((draining, since)) = ({
            let mut state = self.state();
            let attempt = state.attempts.get_mut(&ticket);
            attempt.and_then(|attempt| attempt.take_draining())
        }) else {
            return;
        };
        let _span = spans::attempt(name, ticket);
        let calls = draining.in_flight();
        trace!(target: "hotmerge::plugin", calls, "draining: waiting for the calls of the old version");
        let limit = self.config().drain(name);
        let deadline = Instant::now() + limit;
        let version = match draining.wait(Some(deadline)) {
            Ok(version) => version,
            Err(draining) => {
                let calls = draining.in_flight();
                let overdue = PluginEvent::Ending(Ending::DrainOverdue { calls, limit });
                self.tell_and_apply(name, [overdue], Some(Event::Late { ticket }));
                match draining.wait(None) {
                    Ok(version) => version,
                    Err(_) => return,
                }
            }
        };
        let took = since.elapsed();
        let drained = PluginEvent::Ending(Ending::Drained { took });
        self.tell_and_apply(name, [drained], Some(Event::Drained { ticket }));
        self.tear_down(name, version.instance, Some(ticket));
    }

    /// Runs the plugin's teardown on its own thread, so that its thread-locals are gone before the
    /// library is unmapped. An old version has a ticket, and its end is reported.
    fn tear_down(self: &Arc<Self>, name: &PluginName, instance: Instance, ticket: Option<Ticket>) {
        let limit = self.config().teardown(name);
        // A worker is killed when its limit has passed; it is stuck only if that does not end it.
        let patience = match &instance {
            Instance::Host(_) => limit,
            Instance::Worker(_) => limit + KILL,
        };
        let (done, ended) = mpsc::sync_channel(1);
        let last = spawn::give("teardown", (instance, done), move |(instance, done)| {
            let _ = done.send(instance.end(limit));
        });
        let thread = match last {
            Ok(thread) => thread,
            Err((error, (instance, _))) => {
                let its = name.clone();
                let again = move |host: &Arc<Self>| host.tear_down(&its, instance, ticket);
                let task = ending("to tear it down", again);
                let postponed = self.background.postpone(name, task, &error);
                return self.postponed(name, postponed);
            }
        };
        let mut happened = Vec::new();
        let received = match ended.recv_timeout(patience) {
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let stuck = PluginEvent::Ending(Ending::TeardownStuck { limit });
                let late = ticket.map(|ticket| Event::Late { ticket });
                self.tell_and_apply(name, [stuck], late);
                let received = ended.recv();
                happened.push(Ending::TeardownReturned);
                received.ok()
            }
            other => other.ok(),
        };
        if thread.join().is_err() {
            let reason = "its thread panicked".to_owned();
            happened.push(Ending::TeardownFailed { reason });
        }
        if let Some((farewell, remains)) = received {
            if let Err(error) = farewell {
                let reason = error.to_string();
                happened.push(Ending::TeardownFailed { reason });
            }
            let unloaded = remains.release();
            trace!(target: "hotmerge::plugin", plugin = %name, ?unloaded, "torn down");
            if unloaded == Unloaded::Retained {
                happened.push(Ending::Retained);
            }
        }
        let happened = happened.into_iter().map(PluginEvent::Ending);
        let ended = ticket.map(|ticket| Event::Ended { ticket });
        self.tell_and_apply(name, happened, ended);
        if let Some(ticket) = ticket {
            self.state().forget(name, ticket);
        }
    }
}

fn ending(purpose: &str, body: impl FnOnce(&Arc<Supervisor>) + Send + 'static) -> Task<Supervisor> {
    Task::new("ending", purpose, body)
}
