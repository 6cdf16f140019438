//! Notices clients that disconnect while their calls run, whose replies nobody would read.

use std::{
    collections::HashMap,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hotmerge_daemon::Cancel;
use rustix::{
    event::{EventfdFlags, epoll, eventfd},
    io::Errno,
};

/// The number of the event that stops the thread; calls count from 1.
const STOP: u64 = 0;

/// Calls whose clients are watched. Idle while no call runs.
#[derive(Debug)]
pub(super) struct Hangups {
    epoll: OwnedFd,
    stop: OwnedFd,
    calls: Mutex<HashMap<u64, Arc<Cancel>>>,
    last: AtomicU64,
}

impl Hangups {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &stop,
            epoll::EventData::new_u64(STOP),
            epoll::EventFlags::IN,
        )?;
        Ok(Self {
            epoll,
            stop,
            calls: Mutex::default(),
            last: AtomicU64::new(STOP),
        })
    }

    /// Cancels a call if its client disconnects before the result is dropped.
    pub(super) fn watch<'a>(
        &'a self,
        client: &'a UnixStream,
        cancel: &Arc<Cancel>,
    ) -> io::Result<Watched<'a>> {
        let call = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.calls().insert(call, Arc::clone(cancel));
        let watched = Watched {
            hangups: self,
            client,
            call,
        };
        // No flags: epoll always reports a hang-up, and only if the client is gone. A client that closed only
        // its sending side still reads. ONESHOT, because a hang-up lasts.
        epoll::add(
            &self.epoll,
            client,
            epoll::EventData::new_u64(call),
            epoll::EventFlags::ONESHOT,
        )?;
        Ok(watched)
    }

    /// Cancels calls whose clients disconnect, until stopped; then cancels the rest.
    pub(super) fn run(&self) {
        loop {
            let mut events = Vec::with_capacity(16);
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(target: "hotmerge::door", "the host no longer notices when clients disconnect: {error}");
                    return;
                }
            }
            for event in events {
                match event.data.u64() {
                    STOP => return self.calls().values().for_each(|call| call.cancel()),
                    call => {
                        if let Some(cancel) = self.calls().get(&call) {
                            cancel.cancel();
                        }
                    }
                }
            }
        }
    }

    /// Ends [`Hangups::run`].
    pub(super) fn stop(&self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u64, Arc<Cancel>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call whose client is watched, until dropped.
pub(super) struct Watched<'a> {
    hangups: &'a Hangups,
    client: &'a UnixStream,
    call: u64,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        // Fails only if the client could not be watched.
        let _ = epoll::delete(&self.hangups.epoll, self.client);
        self.hangups.calls().remove(&self.call);
    }
}
