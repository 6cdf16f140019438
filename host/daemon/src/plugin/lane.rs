//! The lane of the calling thread: a number that is lent to no other thread meanwhile.
//!
//! Invariant: what a thread wrote in its lane has happened before anything that the lane's next
//! owner does there.
//!
//! Absent on purpose: what is in a lane.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

/// How many threads have a lane of their own at a time.
pub(super) const LANES: usize = u64::BITS as usize;
/// The lane of all others.
pub(super) const SHARED: usize = LANES;
/// This thread has not asked yet.
const UNKNOWN: usize = usize::MAX;

/// Which lanes are lent, one bit each.
static LENT: AtomicU64 = AtomicU64::new(0);

// Two variables, because one without a destructor is read without asking whether it still exists.
thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(UNKNOWN) };
    static LEASE: Lease = Lease::take();
}

/// A lane that is lent to this thread until its end.
struct Lease(usize);

impl Lease {
    fn take() -> Self {
        let mut lent = LENT.load(Ordering::Relaxed);
        while lent != u64::MAX {
            let lane = lent.trailing_ones();
            let before = LENT.fetch_or(1 << lane, Ordering::Acquire);
            if before & (1 << lane) == 0 {
                return Self(lane as usize);
            }
            lent = before;
        }
        Self(SHARED)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        CURRENT.set(SHARED);
        if self.0 < LANES {
            LENT.fetch_and(!(1 << self.0), Ordering::Release);
        }
    }
}

/// The lane of this thread.
#[inline(always)]
pub(super) fn current() -> usize {
    match CURRENT.get() {
        UNKNOWN => first(),
        lane => lane,
    }
}

#[cold]
#[inline(never)]
fn first() -> usize {
    let lane = LEASE.try_with(|lease| lease.0).unwrap_or(SHARED);
    CURRENT.set(lane);
    lane
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::{Barrier, Mutex},
        thread,
    };

    use super::*;

    #[test]
    fn no_two_threads_have_one_lane() {
        let threads = LANES + 8;
        let (all, seen) = (Barrier::new(threads), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let lane = current();
                    assert_eq!(lane, current());
                    seen.lock().unwrap().push(lane);
                    all.wait();
                });
            }
        });
        let seen = seen.into_inner().unwrap();
        let own: Vec<_> = seen.iter().filter(|lane| **lane != SHARED).collect();
        let distinct: HashSet<_> = own.iter().collect();
        assert_eq!(own.len(), distinct.len());
        assert!(own.len() + 8 <= threads, "{} lanes", own.len());
        // They are lent again.
        assert!(thread::spawn(current).join().unwrap() < LANES);
    }
}
