//! Which numbered slots or areas are free, recorded in private memory.

use std::sync::{
    Condvar, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};
use std::time::Duration;

use crate::now_ns;

/// How often a waiter checks whether to go on: nothing wakes it when an abandoned call returns.
const ASK: Duration = Duration::from_millis(10);

/// Up to 32 numbers, each owned by at most one.
#[derive(Debug)]
pub(crate) struct Pool {
    free: AtomicU32,
    waiters: AtomicU32,
    wakes: AtomicU32,
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
            wakes: AtomicU32::new(0),
            lock: Mutex::new(()),
            freed: Condvar::new(),
        }
    }

    pub(crate) fn try_take(&self) -> Option<u32> {
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

    /// Takes a free number, and waits for one while `go_on` returns `true`. `go_on` runs now and then,
    /// without the lock, because it may give numbers back itself.
    pub(crate) fn take(&self, go_on: impl Fn() -> bool) -> Option<u32> {
        self.take_by(|| self.try_take(), go_on)
    }

    /// As [`Pool::take`], with a `take` that may decline free numbers.
    pub(crate) fn take_by(
        &self,
        take: impl Fn() -> Option<u32>,
        go_on: impl Fn() -> bool,
    ) -> Option<u32> {
        if let Some(number) = take() {
            return Some(number);
        }
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let taken = loop {
            let wakes = self.wakes.load(Ordering::SeqCst);
            if !go_on() {
                // The wake-up that this thread received may have announced a free number.
                self.freed.notify_one();
                break None;
            }
            let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            // A thread that gives a number back from here on needs this lock before it can wake others.
            if let Some(number) = take() {
                break Some(number);
            }
            if self.wakes.load(Ordering::SeqCst) == wakes {
                drop(
                    self.freed
                        .wait_timeout(guard, ASK)
                        .unwrap_or_else(PoisonError::into_inner),
                );
            }
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

    /// Wakes all waiters, so that they check whether to go on.
    pub(crate) fn wake_all(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.freed.notify_all();
    }
}

/// Whether a point on the monotonic clock has passed; 0 never does.
pub(crate) fn passed(deadline_ns: u64) -> bool {
    deadline_ns != 0 && now_ns() >= deadline_ns
}
