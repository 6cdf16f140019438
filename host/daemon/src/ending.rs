//! How an old version ends: its last call returns, it tears itself down, its memory goes
//! back to the system.
//!
//! In-process code cannot be killed. What does not end in time is kept, counted and named
//! in the status, and never unmapped under a running call.

use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Instant,
};

use hotmerge_loader::Unloaded;
use hotmerge_meta::PluginName;

use crate::{
    instance::Instance,
    lifecycle::{Event, Ticket},
    supervisor::Supervisor,
    threads,
};

impl Supervisor {
    pub(crate) fn end_in_background(self: &Arc<Self>, name: &PluginName, ticket: Ticket) {
        let (this, name) = (Arc::clone(self), name.clone());
        spawn(move || this.drain(&name, ticket));
    }

    pub(crate) fn discard_in_background(self: &Arc<Self>, name: &PluginName, ticket: Ticket) {
        let ready = {
            let mut state = self.state();
            let attempt = state.attempts.remove(&ticket);
            attempt.and_then(|mut attempt| attempt.ready.take())
        };
        if let Some(instance) = ready {
            let (this, name) = (Arc::clone(self), name.clone());
            spawn(move || this.discard(&name, instance));
        }
    }

    /// Ends an instance that never took a call.
    pub(crate) fn discard(&self, name: &PluginName, instance: Instance) {
        tracing::info!(plugin = %name, "a candidate that took no calls is ended");
        self.tear_down(name, instance, || {});
    }

    fn drain(self: &Arc<Self>, name: &PluginName, ticket: Ticket) {
        let Some(draining) = ({
            let mut state = self.state();
            let attempt = state.attempts.get_mut(&ticket);
            attempt.and_then(|attempt| attempt.draining.take())
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
        self.tear_down(name, version.instance, || {
            self.apply(name, Event::Late { ticket });
        });
        self.apply(name, Event::Ended { ticket });
        self.state().forget(name, ticket);
    }

    /// Runs the plugin's last code on a thread of its own, so that what that leaves in
    /// thread-locals is gone before the library is.
    fn tear_down(&self, name: &PluginName, instance: Instance, late: impl FnOnce()) {
        let limit = self.config.teardown(name);
        let (done, ended) = mpsc::sync_channel(1);
        let last = thread::Builder::new()
            .name("teardown".into())
            .spawn(move || {
                let _ = done.send(instance.end(limit));
            });
        let thread = match last {
            Ok(thread) => thread,
            Err(error) => {
                tracing::error!(plugin = %name, "failed to start a thread, an old version goes without its teardown: {error}");
                self.counters.stuck.fetch_add(1, Ordering::Relaxed);
                return late();
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
                late();
                let received = ended.recv();
                self.counters.stuck.fetch_sub(1, Ordering::Relaxed);
                received.ok()
            }
            other => other.ok(),
        };
        if thread.join().is_err() {
            tracing::error!(plugin = %name, "the thread of a teardown panicked");
        }
        let Some((farewell, remains)) = received else {
            return;
        };
        if let Err(error) = farewell {
            tracing::warn!(plugin = %name, "teardown failed: {error}");
        }
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

fn spawn(body: impl FnOnce() + Send + 'static) {
    // A host that cannot start a thread keeps the old version and says so; it must not end.
    if let Err(error) = threads::start("ending", body) {
        tracing::error!("failed to start a thread, an old version stays: {error}");
    }
}
