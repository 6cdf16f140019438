//! What SIGHUP orders, on threads of its own: the main thread takes further signals meanwhile.
//!
//! Invariants: a look begins after the last order for one, however many came, and none waits for
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
use sd_notify::NotifyState;

use crate::manager;

/// Orders reloads.
#[derive(Debug)]
pub(crate) struct Reloads {
    orders: SyncSender<()>,
    told: Arc<Told>,
}

/// What the service manager knows; held while it is told anything.
#[derive(Debug, Default)]
struct Told(Mutex<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// Looks that have begun.
    begun: u64,
    /// Those of them that are over; what they started may go on.
    looked: u64,
    /// Whether the host stops, after which nothing else is told.
    stopping: bool,
}

impl Told {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begins(&self) {
        let mut progress = self.progress();
        progress.begun += 1;
        if progress.stopping {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => manager::tell(&[NotifyState::Reloading, now]),
            Err(error) => {
                tracing::warn!(target: "hotmerge::host", "failed to read the clock: {error}");
            }
        }
    }

    fn looked(&self) {
        let mut progress = self.progress();
        progress.looked = progress.begun;
    }

    /// The end of what all looks up to this one have started.
    fn ends(&self, looked: u64) {
        let progress = self.progress();
        if !progress.stopping && progress.begun == looked {
            manager::tell(&[NotifyState::Ready]);
        }
    }

    fn stops(&self) {
        self.progress().stopping = true;
        manager::tell(&[NotifyState::Stopping]);
    }
}

impl Reloads {
    /// Starts the threads that reload.
    pub(crate) fn start(host: &Arc<Host>) -> io::Result<Self> {
        // One that waits stands for all that come before it is taken.
        let (orders, ordered) = sync_channel(1);
        let (looks, looked) = sync_channel(1);
        let told = Arc::<Told>::default();
        start(host, "look", ordered, {
            let told = Arc::clone(&told);
            move |host| {
                told.begins();
                let _ = host.reread_config();
                host.rescan();
                told.looked();
                order(&looks);
            }
        })?;
        start(host, "reload", looked, {
            let told = Arc::clone(&told);
            move |host| {
                let looked = told.progress().looked;
                host.settle();
                told.ends(looked);
            }
        })?;
        Ok(Self { orders, told })
    }

    /// Orders one.
    pub(crate) fn order(&self) {
        order(&self.orders);
    }

    /// Tells the service manager that the host stops, and nothing after it.
    pub(crate) fn stop(&self) {
        self.told.stops();
    }
}

fn order(orders: &SyncSender<()>) {
    match orders.try_send(()) {
        Ok(()) | Err(TrySendError::Full(())) => {}
        Err(TrySendError::Disconnected(())) => {
            tracing::error!(target: "hotmerge::host", "nobody reloads any more: its thread has ended");
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
