//! What SIGHUP orders, on a thread of its own: the main thread takes further signals meanwhile.
//!
//! Invariant: a reload begins after the last order for one, however many came, and the service
//! manager learns of its beginning and its end, so that its `reload` waits for the result.
//!
//! Absent on purpose: what a reload does.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use hotmerge_daemon::Host;
use hotmerge_meta::control::ReloadParams;
use sd_notify::NotifyState;

use crate::manager;

/// Orders reloads.
#[derive(Debug)]
pub(crate) struct Reloads {
    orders: SyncSender<()>,
    /// Whether the service manager was told that the host stops; held while it is told anything.
    stopping: Arc<Mutex<bool>>,
}

impl Reloads {
    /// Starts the thread that reloads.
    pub(crate) fn start(host: &Arc<Host>) -> io::Result<Self> {
        // One order that waits stands for all that come before it is taken.
        let (orders, ordered) = sync_channel(1);
        let stopping = Arc::<Mutex<bool>>::default();
        let (host, is_stopping) = (Arc::downgrade(host), Arc::clone(&stopping));
        thread::Builder::new()
            .name("reload".into())
            .spawn(move || {
                while ordered.recv() == Ok(()) {
                    let Some(host) = host.upgrade() else { return };
                    reload(&host, &is_stopping);
                }
            })?;
        Ok(Self { orders, stopping })
    }

    /// Orders one.
    pub(crate) fn order(&self) {
        match self.orders.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => {
                tracing::error!(target: "hotmerge::host", "nobody reloads any more: its thread has ended");
            }
        }
    }

    /// Tells the service manager that the host stops, and nothing after it.
    pub(crate) fn stop(&self) {
        let mut stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        *stopping = true;
        manager::tell(&[NotifyState::Stopping]);
    }
}

fn reload(host: &Host, stopping: &Mutex<bool>) {
    let tell = |state: &[NotifyState<'_>]| {
        let stopping = stopping.lock().unwrap_or_else(PoisonError::into_inner);
        if !*stopping {
            manager::tell(state);
        }
    };
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => {
            tracing::warn!(target: "hotmerge::host", "failed to read the clock: {error}");
        }
    }
    host.reload(&ReloadParams {
        config: true,
        ..ReloadParams::default()
    });
    tell(&[NotifyState::Ready]);
}
