//! The end of an old version: its last call returns, it tears itself down, its memory is
//! unmapped.
//!
//! In-process code cannot be killed. A version that does not end in time is kept, counted and
//! shown in the status, and never unmapped under a running call.

use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    time::Instant,
};

use hotmerge_instance::{Ended, Instance, spawn};
use hotmerge_lifecycle::{Event, Ticket};
use hotmerge_loader::Unloaded;
use hotmerge_meta::PluginName;

use crate::supervise::{state::Progress, supervisor::Supervisor, threads::Task};

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
        tracing::info!(plugin = %name, "ended a candidate that took no calls");
        self.tear_down(name, instance, None);
    }

    fn drain(self: &Arc<Self>, name: &PluginName, ticket: Ticket) {
        let Some(draining) = ({
            let mut state = self.state();
            let attempt = state.attempts.get_mut(&ticket);
            attempt.and_then(|attempt| attempt.take_draining())
        }) else {
            return;
        };
        let limit = self.config.drain(name);
        let deadline = Instant::now() + limit;
        let version = match draining.wait(Some(deadline)) {
            Ok(version) => version,
            Err(draining) => {
                self.counters.overdue.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    plugin = %name,
                    calls = draining.in_flight(),
                    "calls still run on an old version after {} ms; it is kept until they return",
                    limit.as_millis()
                );
                self.apply(name, Event::Late { ticket });
                match draining.wait(None) {
                    Ok(version) => version,
                    Err(_) => return,
                }
            }
        };
        self.apply(name, Event::Drained { ticket });
        self.tear_down(name, version.instance, Some(ticket));
    }

    /// Runs the plugin's teardown on its own thread, so that its thread-locals are gone before the
    /// library is unmapped. An old version has a ticket, and its end is reported.
    fn tear_down(self: &Arc<Self>, name: &PluginName, instance: Instance, ticket: Option<Ticket>) {
        let limit = self.config.teardown(name);
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
                let due = self.background.put_off(name, task, &error);
                return self.clock.wake_at(due);
            }
        };
        let received = match ended.recv_timeout(limit) {
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.counters.stuck.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    plugin = %name,
                    "teardown has not returned after {} ms; the old version is kept until it does",
                    limit.as_millis()
                );
                if let Some(ticket) = ticket {
                    self.apply(name, Event::Late { ticket });
                }
                let received = ended.recv();
                self.counters.stuck.fetch_sub(1, Ordering::Relaxed);
                received.ok()
            }
            other => other.ok(),
        };
        if thread.join().is_err() {
            tracing::error!(plugin = %name, "the thread of a teardown panicked");
        }
        if let Some((farewell, remains)) = received {
            if let Err(error) = farewell {
                tracing::warn!(plugin = %name, "teardown failed: {error}");
            }
            self.release(name, remains);
        }
        if let Some(ticket) = ticket {
            self.apply(name, Event::Ended { ticket });
            self.state().forget(name, ticket);
        }
    }

    fn release(&self, name: &PluginName, remains: Ended) {
        if remains.release() == Unloaded::Retained {
            self.counters.retained.fetch_add(1, Ordering::Relaxed);
            if let Some(plugin) = self.plugin(name.as_str()) {
                plugin.retained.fetch_add(1, Ordering::Relaxed);
            }
            tracing::warn!(
                plugin = %name,
                "an old version cannot be unmapped: a thread holds its thread-locals, or it left \
                 threads behind"
            );
        }
    }
}

fn ending(purpose: &str, body: impl FnOnce(&Arc<Supervisor>) + Send + 'static) -> Task<Supervisor> {
    Task::new("ending", purpose, body)
}
