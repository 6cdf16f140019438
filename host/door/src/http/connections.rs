//! Which connections are open, and which one is closed when there is no room.
//!
//! Invariant: a new connection is always accepted: when all places are taken, the connection that has
//! been idle longest is closed.
//!
//! Absent on purpose: reading and writing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// The open connections.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    /// Counts what happens on connections.
    clock: Arc<AtomicU64>,
    open: Mutex<Open>,
    /// Notified when a connection has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    by_id: BTreeMap<u64, Arc<Connection>>,
}

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Number of requests in progress on it.
    busy: AtomicUsize,
    /// When it came, or its last request was answered.
    used: AtomicU64,
    clock: Arc<AtomicU64>,
    /// Notified when a request has begun on it, also before anybody waits for that.
    pub(super) first: Notify,
    /// Notified when it must make room.
    pub(super) leave: Notify,
}

/// A connection's place, until dropped.
#[derive(Debug)]
pub(super) struct Guest {
    connections: Arc<Connections>,
    id: u64,
    pub(super) connection: Arc<Connection>,
    /// Whether another connection had to make room for it.
    pub(super) displaced: bool,
}

/// A request in progress on a connection, until dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Connection>);

/// A connection whose client is to send the rest of a request, until dropped.
#[derive(Debug)]
pub(super) struct AwaitsClient<'a>(&'a Connection);

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            clock: Arc::default(),
            open: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// Gives a connection a place, if necessary that of the connection that has been idle longest.
    pub(super) fn enter(self: &Arc<Self>) -> Guest {
        let mut open = self.open();
        let mut displaced = false;
        if open.by_id.len() >= self.most {
            let idle = open
                .by_id
                .iter()
                .filter(|(_, it)| it.busy.load(Ordering::Relaxed) == 0)
                .min_by_key(|(_, it)| it.used.load(Ordering::Relaxed))
                .or_else(|| open.by_id.first_key_value())
                .map(|(id, _)| *id);
            if let Some(connection) = idle.and_then(|id| open.by_id.remove(&id)) {
                connection.leave.notify_one();
                displaced = true;
            }
        }
        open.last += 1;
        let id = open.last;
        let connection = Arc::new(Connection {
            clock: Arc::clone(&self.clock),
            ..Connection::default()
        });
        connection.touch();
        open.by_id.insert(id, Arc::clone(&connection));
        Guest {
            connections: Arc::clone(self),
            id,
            connection,
            displaced,
        }
    }

    /// Number of open connections.
    pub(super) fn len(&self) -> usize {
        self.open().by_id.len()
    }

    /// Waits until none is open.
    pub(super) async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.len() == 0 {
                return;
            }
            ended.await;
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.connections.open().by_id.remove(&self.id);
        self.connections.ended.notify_waiters();
    }
}

impl Connection {
    /// Not busy, until what this returns is dropped: a request has begun, but the client is to send the
    /// rest of it.
    pub(super) fn awaits_client(&self) -> AwaitsClient<'_> {
        self.busy.fetch_sub(1, Ordering::Relaxed);
        AwaitsClient(self)
    }

    fn touch(&self) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        self.used.store(now, Ordering::Relaxed);
    }
}

impl UnderWay {
    pub(super) fn begin(connection: &Arc<Connection>) -> Self {
        connection.busy.fetch_add(1, Ordering::Relaxed);
        connection.first.notify_one();
        Self(Arc::clone(connection))
    }
}

impl Drop for AwaitsClient<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.touch();
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_connection_makes_room() {
        let connections = Arc::new(Connections::new(2));
        let busy = connections.enter();
        let _request = UnderWay::begin(&busy.connection);
        let idle = connections.enter();
        assert!(!idle.displaced);
        let new = connections.enter();
        assert!(new.displaced);
        assert_eq!(connections.len(), 2);
        // The connection that leaves is notified, and frees no other's place when it ends.
        drop(idle);
        assert_eq!(connections.len(), 2);
        drop((busy, new));
        assert_eq!(connections.len(), 0);
    }

    #[test]
    fn a_recent_request_makes_a_connection_busy() {
        let connections = Arc::new(Connections::new(2));
        let regular = connections.enter();
        let silent = connections.enter();
        drop(UnderWay::begin(&regular.connection));
        let new = connections.enter();
        assert!(new.displaced);
        let left = connections.open().by_id.keys().copied().collect::<Vec<_>>();
        assert_eq!(left, [regular.id, new.id]);
        drop(silent);
    }

    #[test]
    fn sending_a_body_takes_no_place() {
        let connections = Arc::new(Connections::new(2));
        let sender = connections.enter();
        let request = UnderWay::begin(&sender.connection);
        let regular = connections.enter();
        let sending = sender.connection.awaits_client();
        let new = connections.enter();
        let left = connections.open().by_id.keys().copied().collect::<Vec<_>>();
        assert_eq!(left, [regular.id, new.id]);
        drop(sending);
        drop(request);
    }
}
