//! Who is connected, what each connection is doing, and which one is closed when there is no room.
//!
//! Invariants: whatever one user does, what is answered at once is answered, to every user: calls
//! and other requests that take their time have fewer places than there are connections, one user
//! has fewer connections than there are, and whoever leaves the host waiting (with the next request, or
//! with reading its reply) is closed first, the longest-waiting one before the others. What replies
//! hold in memory until they are read is bounded.
//!
//! Absent on purpose: threads, frames.

use std::{
    collections::HashMap,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::answer::Weight;

/// How many connections are open at once.
const CONNECTIONS: usize = 96;
/// How many of them one user has: others keep some.
const OF_ONE_USER: usize = 80;
/// How many calls of one user run at once.
const CALLS: usize = 64;
/// How many other requests of one user that take their time run at once. The connections that are
/// left are for what is answered at once.
const WAITING: usize = 8;
/// How many bytes of replies wait to be read.
const UNREAD: usize = 64 << 20;

#[derive(Debug, Default)]
pub(super) struct Connections {
    table: Mutex<Table>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, Connection>,
    /// Counts everything that connections begin, so that the oldest is known.
    turns: u64,
}

#[derive(Debug)]
struct Connection {
    uid: u32,
    stream: UnixStream,
    doing: Doing,
    /// When it began that.
    turn: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It waits for its peer, who has this many bytes of a reply to read.
    Peer { unread: usize },
    /// It answers.
    Answer(Weight),
}

/// Whether a request may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Yours,
    /// Too many of its kind are under way.
    Busy,
    /// The connection was closed to make room.
    Closed,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in, if there is room or some can be made.
    pub(super) fn admit(&self, id: u64, uid: u32, stream: UnixStream) -> bool {
        let mut table = self.lock();
        let own = table.open.values().filter(|it| it.uid == uid).count();
        let has_room = (own < OF_ONE_USER || table.close_oldest(|it| it.uid == uid))
            && (table.open.len() < CONNECTIONS || table.close_oldest(|_| true));
        if has_room {
            let turn = table.next_turn();
            let connection = Connection {
                uid,
                stream,
                doing: Doing::Peer { unread: 0 },
                turn,
            };
            table.open.insert(id, connection);
        }
        has_room
    }

    /// A connection has a request to answer.
    pub(super) fn begin(&self, id: u64, weight: Weight) -> Turn {
        let mut table = self.lock();
        let Some(uid) = table.open.get(&id).map(|it| it.uid) else {
            return Turn::Closed;
        };
        let limit = match weight {
            Weight::Call => CALLS,
            Weight::Waiting => WAITING,
            Weight::Quick => OF_ONE_USER,
        };
        let doing = Doing::Answer(weight);
        let alike = table.open.values();
        if alike
            .filter(|it| (it.uid, it.doing) == (uid, doing))
            .count()
            >= limit
        {
            return Turn::Busy;
        }
        table.set(id, doing);
        Turn::Yours
    }

    /// A connection has this much to write to its peer; with nothing, it waits for a request.
    pub(super) fn wait_for_peer(&self, id: u64, unread: usize) {
        let mut table = self.lock();
        table.set(id, Doing::Peer { unread });
        while table.unread() > UNREAD && table.close_oldest(|it| it.unread() > 0) {}
    }

    pub(super) fn remove(&self, id: u64) {
        self.lock().open.remove(&id);
        self.ended.notify_all();
    }

    pub(super) fn shut(&self, how: Shutdown) {
        for connection in self.lock().open.values() {
            // Fails only if the peer has gone already.
            let _ = connection.stream.shutdown(how);
        }
    }

    /// Waits until none is left, or for so long.
    pub(super) fn wait_for_end(&self, patience: Duration) {
        let open = |table: &mut Table| !table.open.is_empty();
        let waited = self.ended.wait_timeout_while(self.lock(), patience, open);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Table {
    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn set(&mut self, id: u64, doing: Doing) {
        let turn = self.next_turn();
        if let Some(connection) = self.open.get_mut(&id) {
            (connection.doing, connection.turn) = (doing, turn);
        }
    }

    fn unread(&self) -> usize {
        self.open.values().map(Connection::unread).sum()
    }

    /// Closes the one that has waited for its peer for longest, of those that may be closed.
    fn close_oldest(&mut self, may: impl Fn(&Connection) -> bool) -> bool {
        let waiting = self.open.iter().filter(|(_, it)| it.waits() && may(it));
        let Some(id) = waiting.min_by_key(|(_, it)| it.turn).map(|(id, _)| *id) else {
            return false;
        };
        if let Some(connection) = self.open.remove(&id) {
            tracing::debug!(target: "hotmerge::door", "a connection that asks nothing was closed for others");
            // Wakes its thread, which finds the end.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        true
    }
}

impl Connection {
    fn waits(&self) -> bool {
        matches!(self.doing, Doing::Peer { .. })
    }

    fn unread(&self) -> usize {
        match self.doing {
            Doing::Peer { unread } => unread,
            Doing::Answer(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The host's ends of as many connections of a user, and the peers'.
    fn fill(connections: &Connections, from: u64, count: usize, uid: u32) -> Vec<UnixStream> {
        let ids = from..from + count as u64;
        let open = ids.map(|id| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            assert!(connections.admit(id, uid, ours), "connection {id}");
            theirs
        });
        open.collect()
    }

    fn is_closed(stream: &UnixStream) -> bool {
        stream.set_nonblocking(true).unwrap();
        matches!(std::io::Read::read(&mut &*stream, &mut [0]), Ok(0))
    }

    #[test]
    fn the_oldest_idle_one_makes_room() {
        let connections = Connections::default();
        let peers = fill(&connections, 0, OF_ONE_USER, 7);
        assert_eq!(connections.begin(0, Weight::Quick), Turn::Yours);
        let _new = fill(&connections, 1000, 1, 7);
        assert!(!is_closed(&peers[0]), "it is being answered");
        assert!(is_closed(&peers[1]));
        assert!(!is_closed(&peers[2]));
        assert_eq!(connections.begin(1, Weight::Quick), Turn::Closed);
    }

    #[test]
    fn calls_leave_room_for_other_requests() {
        let connections = Connections::default();
        let _peers = fill(&connections, 0, OF_ONE_USER, 7);
        let turns = |ids: std::ops::Range<u64>, weight| {
            let turns: Vec<_> = ids.map(|id| connections.begin(id, weight)).collect();
            turns.iter().filter(|it| **it == Turn::Yours).count()
        };
        assert_eq!(turns(0..70, Weight::Call), CALLS);
        assert_eq!(turns(64..74, Weight::Waiting), WAITING);
        assert_eq!(turns(72..80, Weight::Quick), 8);
        // All are busy now: this user is told so, and another one is not concerned.
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(!connections.admit(1000, 7, ours));
        let _other = fill(&connections, 2000, CONNECTIONS - OF_ONE_USER, 8);
        assert_eq!(connections.begin(2000, Weight::Call), Turn::Yours);
    }

    #[test]
    fn replies_that_nobody_reads_are_bounded() {
        let connections = Connections::default();
        let peers = fill(&connections, 0, 10, 7);
        for id in 0..10 {
            assert_eq!(connections.begin(id, Weight::Call), Turn::Yours);
            connections.wait_for_peer(id, UNREAD / 4);
            assert!(connections.lock().unread() <= UNREAD);
        }
        let closed: Vec<_> = peers.iter().map(is_closed).collect();
        assert_eq!(closed.iter().filter(|it| **it).count(), 6);
        assert!(closed[0] && !closed[9], "the oldest goes first");
    }
}
