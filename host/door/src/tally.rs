//! Counts of connections and requests.

use std::sync::atomic::{AtomicU64, Ordering};

use hotmerge_meta::control::DoorStatus;

/// Counts since the host's start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    connections: AtomicU64,
    open: AtomicU64,
    requests: AtomicU64,
    denied: AtomicU64,
    busy: AtomicU64,
    closed: AtomicU64,
}

impl Tally {
    /// Counts a connection.
    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that is served from here on.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of a served connection.
    pub(crate) fn ended(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a request.
    pub(crate) fn requested(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection or a request that was refused for lack of a role.
    pub(crate) fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection or a request that was refused for lack of room.
    pub(crate) fn busy(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that was closed to make room.
    pub(crate) fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts, for the status.
    pub(crate) fn status(&self) -> DoorStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DoorStatus {
            connections: count(&self.connections),
            open: count(&self.open),
            requests: count(&self.requests),
            denied: count(&self.denied),
            busy: count(&self.busy),
            closed: count(&self.closed),
        }
    }
}
