//! What comes in at the door, counted.

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
    /// A connection came.
    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// It is served from here on.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// It is served no more.
    pub(crate) fn ended(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request came.
    pub(crate) fn requested(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection or a request was refused for want of a role.
    pub(crate) fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection or a request was refused for want of room.
    pub(crate) fn busy(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed to make room for others.
    pub(crate) fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// For the status.
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
