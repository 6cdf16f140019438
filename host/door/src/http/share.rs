//! Limits the calls in progress, in total and per client.
//!
//! Invariant: a call's place is free again when the call ends, however it ends.
//!
//! Absent on purpose: waiting. A client that finds no room is told when to try again.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::problem::{Kind, Problem};

/// The client whose calls are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Client {
    Address(IpAddr),
    User(u32),
    Token(String),
}

/// The places for calls.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    most_per_client: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_client: HashMap<Client, usize>,
}

/// The place of one call, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    client: Client,
}

impl Room {
    pub(super) fn new(most: usize, most_per_client: usize) -> Self {
        Self {
            most,
            most_per_client,
            taken: Mutex::default(),
        }
    }

    /// Takes a place for one call.
    pub(super) fn take(self: &Arc<Self>, client: &Client) -> Result<Place, Problem> {
        let mut taken = self.taken();
        let own = taken.by_client.get(client).copied().unwrap_or(0);
        if own >= self.most_per_client {
            let detail = format!("{own} calls of this client are under way");
            return Err(Problem::new(Kind::TooManyCalls, detail));
        }
        if taken.all >= self.most {
            let detail = format!("{} calls are under way", taken.all);
            return Err(Problem::new(Kind::Busy, detail));
        }
        taken.all += 1;
        taken.by_client.insert(client.clone(), own + 1);
        Ok(Place {
            room: Arc::clone(self),
            client: client.clone(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.all -= 1;
        if let Some(own) = taken.by_client.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_takes_more_than_its_share() {
        let room = Arc::new(Room::new(3, 2));
        let (one, two) = (Client::User(1), Client::Token("ci".into()));
        let kept = [room.take(&one).unwrap(), room.take(&one).unwrap()];
        assert_eq!(room.take(&one).unwrap_err().kind, Kind::TooManyCalls);
        let other = room.take(&two).unwrap();
        assert_eq!(room.take(&two).unwrap_err().kind, Kind::Busy);
        drop(other);
        drop(kept);
        assert!(room.taken().by_client.is_empty());
        assert_eq!(room.taken().all, 0);
    }
}
