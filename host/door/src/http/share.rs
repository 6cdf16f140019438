//! How many calls are under way and how many bytes of bodies are held, in all and per client.
//!
//! Invariant: whatever a request takes is freed when it ends, however it ends.
//!
//! Absent on purpose: waiting. The refusal of a client without room says when to try again.

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

/// The room for calls, or for the bytes of their bodies.
#[derive(Debug)]
pub(super) struct Room {
    what: &'static str,
    most: usize,
    most_per_client: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_client: HashMap<Client, usize>,
}

/// Room that was taken, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    amount: usize,
    client: Client,
}

impl Room {
    pub(super) fn new(what: &'static str, most: usize, most_per_client: usize) -> Self {
        Self {
            what,
            most,
            most_per_client,
            taken: Mutex::default(),
        }
    }

    /// Takes room for so many.
    pub(super) fn take(self: &Arc<Self>, client: &Client, amount: usize) -> Result<Place, Problem> {
        let mut place = Place {
            room: Arc::clone(self),
            amount: 0,
            client: client.clone(),
        };
        place.grow(amount)?;
        Ok(place)
    }

    /// Whether there would be room for so many now, without taking it.
    pub(super) fn check(&self, client: &Client, amount: usize) -> Result<(), Problem> {
        self.held_beside(&self.taken(), client, amount).map(drop)
    }

    /// How much the client holds, if there is room for so many more.
    fn held_beside(&self, taken: &Taken, client: &Client, amount: usize) -> Result<usize, Problem> {
        let what = self.what;
        let own = taken.by_client.get(client).copied().unwrap_or(0);
        if own.saturating_add(amount) > self.most_per_client {
            let detail = format!("{own} {what} of this client are in progress");
            return Err(Problem::new(Kind::TooManyCalls, detail));
        }
        if taken.all.saturating_add(amount) > self.most {
            let detail = format!("{} {what} are in progress", taken.all);
            return Err(Problem::new(Kind::Busy, detail));
        }
        Ok(own)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Takes room for so many more.
    pub(super) fn grow(&mut self, amount: usize) -> Result<(), Problem> {
        let mut taken = self.room.taken();
        let own = self.room.held_beside(&taken, &self.client, amount)?;
        if amount > 0 {
            taken.all += amount;
            taken.by_client.insert(self.client.clone(), own + amount);
            self.amount += amount;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        let mut taken = self.room.taken();
        taken.all -= self.amount;
        if let Some(own) = taken.by_client.get_mut(&self.client) {
            *own -= self.amount;
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
        let room = Arc::new(Room::new("calls", 3, 2));
        let (one, two) = (Client::User(1), Client::Token("ci".into()));
        let kept = [room.take(&one, 1).unwrap(), room.take(&one, 1).unwrap()];
        assert_eq!(room.take(&one, 1).unwrap_err().kind, Kind::TooManyCalls);
        assert_eq!(room.check(&one, 1).unwrap_err().kind, Kind::TooManyCalls);
        for _ in 0..3 {
            room.check(&two, 1).expect("checking takes no room");
        }
        let other = room.take(&two, 1).unwrap();
        assert_eq!(room.take(&two, 1).unwrap_err().kind, Kind::Busy);
        drop(other);
        drop(kept);
        assert!(room.taken().by_client.is_empty());
        assert_eq!(room.taken().all, 0);
    }

    #[test]
    fn a_refused_record_takes_no_room() {
        let room = Arc::new(Room::new("bytes", 10, 8));
        let mut place = room.take(&Client::User(1), 0).unwrap();
        place.grow(8).unwrap();
        assert_eq!(place.grow(1).unwrap_err().kind, Kind::TooManyCalls);
        assert_eq!(room.take(&Client::User(2), 3).unwrap_err().kind, Kind::Busy);
        drop(place);
        assert_eq!(room.taken().all, 0);
    }
}
