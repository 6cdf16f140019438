//! What SIGHUP orders, on threads of its own: the main thread takes further signals meanwhile.
//!
//! Invariants: a scan begins after the last order for one, however many came, and none waits for
//! what an earlier one started; the service manager learns of the beginning and of the end of all
//! that was ordered, so that its `reload` waits for the result.
//!
//! Absent on purpose: what a reload does.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use hotmerge_daemon::Host;
use hotmerge_observe::sinks::Router;
use sd_notify::NotifyState;

use crate::manager;

/// Orders reloads.
#[derive(Debug)]
pub(crate) struct Reloads {
    orders: SyncSender<()>,
    manager: Arc<ServiceManager>,
}

/// The service manager. Messages are sent under the lock, so that none follows `STOPPING=1`.
#[derive(Debug, Default)]
struct ServiceManager(Mutex<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// How many scans have begun.
    begun: u64,
    /// How many of them have ended; the reloads that they started may go on.
    ended: u64,
    /// Whether the host stops, after which no other message is sent.
    is_stopping: bool,
}

impl ServiceManager {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_begins(&self) {
        let mut progress = self.progress();
        progress.begun += 1;
        if progress.is_stopping {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => manager::tell(&[NotifyState::Reloading, now]),
            Err(error) => {
                tracing::warn!(target: "hotmerge::host", "failed to read the clock: {error}");
            }
        }
    }

    fn look_ends(&self) {
        let mut progress = self.progress();
        progress.ended = progress.begun;
    }

    /// All reloads that the first `looks` scans started have ended.
    fn reloads_end(&self, looks: u64) {
        let progress = self.progress();
        if !progress.is_stopping && progress.begun == looks {
            manager::tell(&[NotifyState::Ready]);
        }
    }

    fn host_stops(&self) {
        self.progress().is_stopping = true;
        manager::tell(&[NotifyState::Stopping]);
    }
}

impl Reloads {
    /// Starts the threads that reload.
    pub(crate) fn start(host: &Arc<Host>, log: &Arc<Router>) -> io::Result<Self> {
        // One order that waits covers all that come before it is taken.
        let (orders, ordered) = sync_channel(1);
        let (looks, looked) = sync_channel(1);
        let manager = Arc::<ServiceManager>::default();
        start(host, "look", ordered, {
            let (manager, log) = (Arc::clone(&manager), Arc::clone(log));
            move |host| {
                manager.look_begins();
                // A program that has renamed a file expects this, even if the configuration is not valid.
                log.reopen();
                let _ = host.reread_config();
                host.rescan();
                manager.look_ends();
                order(&looks);
            }
        })?;
        start(host, "reload", looked, {
            let manager = Arc::clone(&manager);
            move |host| {
                let looks = manager.progress().ended;
                host.settle();
                manager.reloads_end(looks);
            }
        })?;
        Ok(Self { orders, manager })
    }

    /// Orders one.
    pub(crate) fn order(&self) {
        order(&self.orders);
    }

    /// Tells the service manager that the host stops, and nothing after it.
    pub(crate) fn stop(&self) {
        self.manager.host_stops();
    }
}

fn order(orders: &SyncSender<()>) {
    match orders.try_send(()) {
        Ok(()) | Err(TrySendError::Full(())) => {}
        Err(TrySendError::Disconnected(())) => {
            tracing::error!(target: "hotmerge::host", "the host no longer reloads: the thread for it has ended");
        }
    }
}

fn start(
    host: &Arc<Host>,
    name: &str,
    orders: Receiver<()>,
    obey: impl Fn(&Host) + Send + 'static,
) -> io::Result<()> {
    let host = Arc::downgrade(host);
    thread::Builder::new().name(name.into()).spawn(move || {
        while orders.recv() == Ok(()) {
            let Some(host) = host.upgrade() else { return };
            obey(&host);
        }
    })?;
    Ok(())
}
