//! Shares of the processors: limits how many connections of one user compute at the same time, so that
//! their number slows down nobody else.
//!
//! Reading, parsing and answering a quick request needs one of its user's turns; waiting for the peer
//! and calling a plugin need none. A user with one connection never waits.
//!
//! Absent on purpose: what is computed.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
};

/// Beyond this number of users, those without connections are forgotten.
const REMEMBERED: usize = 64;

/// The shares of all users.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<u32, Weak<Share>>>);

/// The share of one user's connections.
#[derive(Debug)]
pub(super) struct Share {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A turn to compute, until dropped.
pub(super) struct Turn<'a>(&'a Share);

impl Shares {
    /// The share of a user.
    pub(super) fn of(&self, user: u32) -> Arc<Share> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&user).and_then(Weak::upgrade) {
            return share;
        }
        if shares.len() >= REMEMBERED {
            shares.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Share::new(half_of_the_processors()));
        shares.insert(user, Arc::downgrade(&share));
        share
    }
}

fn half_of_the_processors() -> usize {
    let all = thread::available_parallelism().map_or(1, usize::from);
    (all / 2).max(1)
}

impl Share {
    fn new(turns: usize) -> Self {
        Self {
            free: Mutex::new(turns),
            freed: Condvar::new(),
        }
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn.
    pub(super) fn turn(&self) -> Turn<'_> {
        let free = self.freed.wait_while(self.free(), |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_compute_at_once_than_have_turns() {
        let share = Share::new(2);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _turn = share.turn();
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 2);
        assert_eq!(*share.free(), 2);
    }

    #[test]
    fn a_share_is_one_users_alone() {
        let shares = Shares::default();
        let one = shares.of(1);
        assert!(Arc::ptr_eq(&one, &shares.of(1)));
        assert!(!Arc::ptr_eq(&one, &shares.of(2)));
        for user in 0..1_000 {
            shares.of(user);
        }
        assert!(Arc::ptr_eq(&one, &shares.of(1)), "it is in use");
        let remembered = shares.0.lock().unwrap().len();
        assert!(remembered <= REMEMBERED, "{remembered}");
    }
}
