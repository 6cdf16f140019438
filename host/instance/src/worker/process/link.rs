//! The connection to a worker process, as callers hold it.

use std::{
    ops::Deref,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU32},
};

use hotmerge_sandbox::no_signal_on_message;
use hotmerge_wire::{Caller, Server};

use crate::{cancel::Cancel, failure::Failure};

/// The connection to a worker process.
#[derive(Debug)]
pub(in crate::worker) struct Link {
    pub(in crate::worker) caller: Caller,
    /// Where the plugin calls outgoing, if it requires any.
    pub(in crate::worker) outgoing: Option<Server>,
    /// Threads that carry these calls.
    pub(in crate::worker) forwarders: AtomicU32,
    /// Ends these calls with it.
    pub(in crate::worker) calls: Cancel,
    pub(in crate::worker) pid: i32,
    /// Where it reports its crashes.
    pub(super) crash: OwnedFd,
    pub(super) end: Mutex<Option<Failure>>,
    /// Why it must be killed, if a caller has found out.
    pub(super) kill_order: Mutex<Option<String>>,
    /// Written to when no caller is left.
    pub(in crate::worker) unused: OwnedFd,
}

/// A connection as callers hold it. The last one to drop it announces that.
#[derive(Debug)]
pub(in crate::worker) struct Callers(Arc<Link>);

impl Callers {
    pub(in crate::worker) fn of(link: &Arc<Link>) -> Arc<Self> {
        Arc::new(Self(Arc::clone(link)))
    }
}

impl Deref for Callers {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.0
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.0.unused, &1_u64.to_ne_bytes());
    }
}

impl Link {
    pub(in crate::worker) fn new(
        caller: Caller,
        outgoing: Option<Server>,
        plugin: &str,
        pid: i32,
        crash: OwnedFd,
        unused: OwnedFd,
    ) -> Arc<Self> {
        Arc::new(Self {
            caller,
            outgoing,
            forwarders: AtomicU32::new(0),
            calls: Cancel::on_behalf_of(plugin),
            pid,
            crash,
            end: Mutex::default(),
            kill_order: Mutex::default(),
            unused,
        })
    }

    /// The worker is dead: ends all waiting for it.
    pub(in crate::worker) fn hang_up(&self) {
        self.caller.hang_up();
        if let Some(outgoing) = &self.outgoing {
            outgoing.hang_up();
            self.calls.cancel();
        }
    }

    /// The worker is to end: that is not a crash, and signals none.
    pub(in crate::worker) fn expect_end(&self) {
        // Fails for no descriptor that is open; it would cost a number in the status.
        let _ = no_signal_on_message(self.crash.as_fd());
    }

    /// Makes the watching thread kill the worker; the first reason counts.
    pub(in crate::worker) fn order_kill(&self, why: String) {
        let order = self.kill_order.lock();
        let mut order = order.unwrap_or_else(PoisonError::into_inner);
        order.get_or_insert(why);
    }

    /// Why the worker must be killed, if it must.
    pub(in crate::worker) fn kill_order(&self) -> Option<String> {
        let order = self.kill_order.lock();
        order.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the worker ended, or is about to.
    pub(in crate::worker) fn end(&self) -> Option<String> {
        self.failure().map(|failure| failure.to_string())
    }

    /// How the worker ended, or is about to, with its parts.
    pub(in crate::worker) fn failure(&self) -> Option<Failure> {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.clone()
    }

    /// Notes how it ended; the first account counts.
    pub(in crate::worker) fn record_end(&self, what: impl Into<Failure>) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.get_or_insert_with(|| what.into());
    }
}
