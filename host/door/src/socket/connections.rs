//! Which connections are open, what each is doing, and which one is closed when there is no room.
//!
//! Invariants: whatever all users do, quick requests of every user are answered. Slow requests of all users
//! together have fewer places than there are connections, one user may have only a part of all
//! connections, and the last places are for administrators. When there is no room, a connection that keeps the host waiting
//! (for its next request, or to read its reply) is closed: of the user with most connections, the one
//! that has waited longest. The memory of incomplete requests and unread replies is bounded: beyond
//! that the user who holds most makes room.
//!
//! Absent on purpose: threads, frames.

use std::{
    collections::HashMap,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{answer::Weight, tally::Tally};

/// Most open connections.
const CONNECTIONS: usize = 256;
/// How many of them are reserved for administrators.
const RESERVE: usize = 16;
/// Most connections of one user, so that others get some.
const OF_ONE_USER: usize = 80;
/// Most concurrent calls of one user.
const CALLS: usize = 64;
/// Most concurrent slow requests of all users, but for administrators. The remaining places are for quick
/// requests alone.
const SLOW: usize = 200;
/// Most other slow requests of one user at a time. The remaining connections are for quick requests.
const WAITING: usize = 8;
/// Most requests of one user at a time that read the log, and may wait for it.
const FOLLOWING: usize = 16;
/// Most memory of incomplete requests and unread replies, in bytes.
const HELD: usize = 64 << 20;

#[derive(Debug, Default)]
pub(super) struct Connections {
    table: Mutex<Table>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, Connection>,
    /// The sum of what they hold, in bytes.
    held: usize,
    /// Numbers the activities of connections, so that the oldest is known.
    turns: u64,
}

/// The user who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guest {
    pub(super) user: u32,
    /// Whether it may use the places reserved for administrators.
    pub(super) may_have_reserve: bool,
}

#[derive(Debug)]
struct Connection {
    guest: Guest,
    stream: UnixStream,
    doing: Doing,
    /// When it began that, as a number of [`Table::turns`].
    turn: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It waits for its peer, and holds this many bytes of an unread reply or an incomplete request.
    Peer { held: usize },
    /// It answers.
    Answer(Weight),
}

/// Whether a request may proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Yours,
    /// Too many requests of its kind are in progress.
    Busy,
    /// The connection was closed to make room.
    Closed,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts a connection, if there is room or room can be made.
    pub(super) fn admit(&self, id: u64, guest: Guest, stream: UnixStream, tally: &Tally) -> bool {
        let mut table = self.lock();
        let places = CONNECTIONS - RESERVE + guest.reserve();
        let is_own = |it: &&Connection| it.guest.user == guest.user;
        let own = table.open.values().filter(is_own).count();
        let has_room = (own < OF_ONE_USER || table.close_oldest_of(guest.user, tally))
            && (table.open.len() < places || table.close_one_of_most(tally));
        if has_room {
            let turn = table.next_turn();
            let connection = Connection {
                guest,
                stream,
                doing: Doing::Peer { held: 0 },
                turn,
            };
            table.open.insert(id, connection);
        }
        has_room
    }

    /// Notes that a connection begins to answer a request.
    pub(super) fn begin(&self, id: u64, weight: Weight) -> Turn {
        let mut table = self.lock();
        let Some(guest) = table.open.get(&id).map(|it| it.guest) else {
            return Turn::Closed;
        };
        let limit = match weight {
            Weight::Call => Some(CALLS),
            Weight::Waiting => Some(WAITING),
            Weight::Following => Some(FOLLOWING),
            // There is never more than one on a connection.
            Weight::Quick => None,
        };
        let doing = Doing::Answer(weight);
        let count = |is: &dyn Fn(&Connection) -> bool| {
            let open = table.open.values();
            open.filter(|it| is(it)).count()
        };
        let is_full = |limit| {
            count(&|it| it.is_slow()) >= SLOW + guest.reserve()
                || count(&|it| (it.guest.user, it.doing) == (guest.user, doing)) >= limit
        };
        if limit.is_some_and(is_full) {
            return Turn::Busy;
        }
        table.set(id, doing);
        Turn::Yours
    }

    /// Notes that a connection has this many bytes to write to its peer; with 0, it waits for a request.
    pub(super) fn wait_for_peer(&self, id: u64, held: usize, tally: &Tally) {
        let mut table = self.lock();
        table.set(id, Doing::Peer { held });
        table.bound_held(tally);
    }

    /// Notes the size of an incomplete request. Sending more of it does not reset its age.
    pub(super) fn hold(&self, id: u64, held: usize, tally: &Tally) {
        let mut table = self.lock();
        let turn = table.open.get(&id).map(|it| it.turn);
        if let Some(turn) = turn {
            table.change(id, Doing::Peer { held }, turn);
            table.bound_held(tally);
        }
    }

    pub(super) fn remove(&self, id: u64) {
        self.lock().remove(id);
        self.ended.notify_all();
    }

    pub(super) fn shut(&self, how: Shutdown) {
        for connection in self.lock().open.values() {
            // Fails only if the peer has disconnected already.
            let _ = connection.stream.shutdown(how);
        }
    }

    /// Waits until no connection is left, at most for `patience`.
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
        self.change(id, doing, turn);
    }

    fn change(&mut self, id: u64, doing: Doing, turn: u64) {
        if let Some(connection) = self.open.get_mut(&id) {
            self.held -= connection.held();
            (connection.doing, connection.turn) = (doing, turn);
            self.held += connection.held();
        }
    }

    fn remove(&mut self, id: u64) -> Option<Connection> {
        let connection = self.open.remove(&id)?;
        self.held -= connection.held();
        Some(connection)
    }

    fn bound_held(&mut self, tally: &Tally) {
        while self.held > HELD {
            let holds = |it: &Connection| it.held() > 0;
            let Some(user) = self.most(Connection::held, holds) else {
                return;
            };
            self.close_oldest(|it| holds(it) && it.guest.user == user, tally);
        }
    }

    /// The user with the largest sum, of those with a connection that may be closed.
    fn most(
        &self,
        weigh: impl Fn(&Connection) -> usize,
        may: impl Fn(&Connection) -> bool,
    ) -> Option<u32> {
        let mut users: HashMap<u32, (usize, bool)> = HashMap::new();
        for connection in self.open.values() {
            let (sum, is_closable) = users.entry(connection.guest.user).or_default();
            *sum += weigh(connection);
            *is_closable |= connection.waits() && may(connection);
        }
        let users = users
            .into_iter()
            .filter(|(_, (_, is_closable))| *is_closable);
        users.max_by_key(|(_, (sum, _))| *sum).map(|(user, _)| user)
    }

    fn close_one_of_most(&mut self, tally: &Tally) -> bool {
        let user = self.most(|_| 1, |_| true);
        user.is_some_and(|user| self.close_oldest_of(user, tally))
    }

    fn close_oldest_of(&mut self, user: u32, tally: &Tally) -> bool {
        self.close_oldest(|it| it.guest.user == user, tally)
    }

    /// Of the connections that may be closed, closes the one that has waited longest for its peer.
    fn close_oldest(&mut self, may: impl Fn(&Connection) -> bool, tally: &Tally) -> bool {
        let waiting = self.open.iter().filter(|(_, it)| it.waits() && may(it));
        let Some(id) = waiting.min_by_key(|(_, it)| it.turn).map(|(id, _)| *id) else {
            return false;
        };
        if let Some(connection) = self.remove(id) {
            tracing::debug!(target: "hotmerge::door", "closed an idle connection to make room for another");
            tally.closed();
            // Wakes its thread, which then ends.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        true
    }
}

impl Guest {
    /// How many more places it may use than others.
    fn reserve(self) -> usize {
        match self.may_have_reserve {
            true => RESERVE,
            false => 0,
        }
    }
}

impl Connection {
    fn is_slow(&self) -> bool {
        matches!(self.doing, Doing::Answer(weight) if weight != Weight::Quick)
    }

    fn waits(&self) -> bool {
        matches!(self.doing, Doing::Peer { .. })
    }

    fn held(&self) -> usize {
        match self.doing {
            Doing::Peer { held } => held,
            Doing::Answer(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(user: u32) -> Guest {
        Guest {
            user,
            may_have_reserve: false,
        }
    }

    /// Opens connections of a user, and returns the peers' ends.
    fn fill(connections: &Connections, from: u64, count: usize, uid: u32) -> Vec<UnixStream> {
        let ids = from..from + count as u64;
        let open = ids.map(|id| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let is_in = connections.admit(id, guest(uid), ours, &Tally::default());
            assert!(is_in, "connection {id}");
            theirs
        });
        open.collect()
    }

    fn held(connections: &Connections) -> usize {
        let table = connections.lock();
        let sum = table.open.values().map(Connection::held).sum();
        assert_eq!(table.held, sum);
        sum
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
        // All are busy now: this user is refused, another one is not.
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(!connections.admit(1000, guest(7), ours, &Tally::default()));
        let _other = fill(&connections, 2000, OF_ONE_USER, 8);
        assert_eq!(connections.begin(2000, Weight::Call), Turn::Yours);
    }

    #[test]
    fn replies_that_nobody_reads_are_bounded() {
        let connections = Connections::default();
        let peers = fill(&connections, 0, 10, 7);
        for id in 0..10 {
            assert_eq!(connections.begin(id, Weight::Call), Turn::Yours);
            connections.wait_for_peer(id, HELD / 4, &Tally::default());
            assert!(held(&connections) <= HELD);
        }
        let closed: Vec<_> = peers.iter().map(is_closed).collect();
        assert_eq!(closed.iter().filter(|it| **it).count(), 6);
        assert!(closed[0] && !closed[9], "the oldest goes first");
    }

    #[test]
    fn incomplete_requests_are_bounded() {
        let connections = Connections::default();
        let peers = fill(&connections, 0, 10, 7);
        let honest = fill(&connections, 100, 1, 8);
        connections.hold(100, HELD / 16, &Tally::default());
        for id in 0..10 {
            connections.hold(id, HELD / 4, &Tally::default());
            assert!(held(&connections) <= HELD);
        }
        assert!(peers.iter().filter(|it| is_closed(it)).count() >= 6);
        assert!(!is_closed(&honest[0]), "others hold more");
    }

    #[test]
    fn the_user_with_most_connections_makes_room() {
        let connections = Connections::default();
        let few = fill(&connections, 0, 2, 7);
        let many: Vec<_> = (0..3_u32)
            .flat_map(|user| fill(&connections, u64::from(user + 1) * 1000, 79, 100 + user))
            .collect();
        let _more = fill(&connections, 9000, 40, 200);
        assert!(few.iter().all(|it| !is_closed(it)));
        assert!(many.iter().any(is_closed));
    }

    /// Fills all common places with connections of many users, each of which asks for a call. Returns those
    /// that find no place for it.
    fn call_from_everywhere(connections: &Connections) -> (Vec<UnixStream>, Vec<u64>) {
        let all = (CONNECTIONS - RESERVE) as u64;
        let peers = (0..all).flat_map(|id| fill(connections, id, 1, (id / 60) as u32));
        let peers = peers.collect();
        let busy = (0..all).filter(|id| connections.begin(*id, Weight::Call) == Turn::Busy);
        (peers, busy.collect())
    }

    fn admit(connections: &Connections, id: u64, may_have_reserve: bool) -> Option<UnixStream> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let guest = Guest {
            user: 1000,
            may_have_reserve,
        };
        let is_in = connections.admit(id, guest, ours, &Tally::default());
        is_in.then_some(theirs)
    }

    #[test]
    fn quick_requests_have_places_of_their_own() {
        let connections = Connections::default();
        let (_peers, busy) = call_from_everywhere(&connections);
        assert_eq!(busy.len(), CONNECTIONS - RESERVE - SLOW);
        let _reader = admit(&connections, 5000, false).expect("there is room for readers");
        assert_eq!(connections.begin(5000, Weight::Quick), Turn::Yours);
        connections.wait_for_peer(5000, 0, &Tally::default());
        assert_eq!(connections.begin(5000, Weight::Call), Turn::Busy);
    }

    #[test]
    fn administrators_get_in_when_all_are_busy() {
        let connections = Connections::default();
        let (_peers, busy) = call_from_everywhere(&connections);
        for id in busy {
            assert_eq!(connections.begin(id, Weight::Quick), Turn::Yours);
        }
        assert!(admit(&connections, 5000, false).is_none());
        let _admin = admit(&connections, 5001, true).expect("places are reserved");
        assert_eq!(connections.begin(5001, Weight::Quick), Turn::Yours);
        let _other = admit(&connections, 5002, true).expect("places are reserved");
        assert_eq!(connections.begin(5002, Weight::Waiting), Turn::Yours);
    }
}
