//! Which of a few numbered things are free: slots, areas. The host's own memory.

use std::sync::{
    Condvar, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};
use std::time::Duration;

use crate::now_ns;

/// Up to 32 numbers, each owned by at most one.
#[derive(Debug)]
pub(crate) struct Pool {
    free: AtomicU32,
    waiters: AtomicU32,
    lock: Mutex<()>,
    freed: Condvar,
}

impl Pool {
    pub(crate) fn new(count: u32) -> Self {
        let free = if count == 32 {
            u32::MAX
        } else {
            (1 << count) - 1
        };
        Self {
            free: AtomicU32::new(free),
            waiters: AtomicU32::new(0),
            lock: Mutex::new(()),
            freed: Condvar::new(),
        }
    }

    fn try_take(&self) -> Option<u32> {
        let mut free = self.free.load(Ordering::SeqCst);
        while free != 0 {
            let lowest = free & free.wrapping_neg();
            match self.free.compare_exchange_weak(
                free,
                free & !lowest,
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
                Ok(_) => return Some(lowest.trailing_zeros()),
                Err(now) => free = now,
            }
        }
        None
    }

    /// Takes a free number; waits for one while `go_on` (asked now and then) says so.
    pub(crate) fn take(&self, go_on: impl Fn() -> bool) -> Option<u32> {
        if let Some(number) = self.try_take() {
            return Some(number);
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let taken = loop {
            if let Some(number) = self.try_take() {
                break Some(number);
            }
            if !go_on() {
                break None;
            }
            guard = self
                .freed
                .wait_timeout(guard, Duration::from_millis(10))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        };
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        taken
    }

    /// Gives a number back.
    pub(crate) fn give(&self, number: u32) {
        self.free.fetch_or(1 << number, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.freed.notify_one();
        }
    }

    /// Wakes all who wait, so that they ask whether to go on.
    pub(crate) fn stir(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.freed.notify_all();
    }
}

/// Whether a point on the monotonic clock has passed; 0 never does.
pub(crate) fn passed(deadline_ns: u64) -> bool {
    deadline_ns != 0 && now_ns() >= deadline_ns
}
