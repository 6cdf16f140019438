//! Where the threads of the called side sleep: on a word of the shared memory, which the other side
//! may ring, and at the same time on a private word of this process.
//!
//! A worker can move a sleeper from its bell to any other word (`FUTEX_REQUEUE`), where nothing would
//! ever wake it. The end is therefore announced on a word that the worker cannot reach.
//!
//! Absent on purpose: what the threads wait for.

use std::{
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::{
    fs::Timespec,
    io::Errno,
    thread::{
        ClockId,
        futex::{self, Flags, Wait, WaitFlags, WaitPtr, WaitvFlags},
    },
};

/// How often a sleeper wakes to check for the end before Linux 5.16, where a sleeper can wait on only one
/// word.
const NAP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// The private word: 0 until the end, then 1.
#[derive(Debug)]
pub(crate) struct Bed {
    closed: AtomicU32,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self {
            closed: AtomicU32::new(0),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst) != 0
    }

    /// Wakes all sleepers; from now on no thread sleeps here.
    pub(crate) fn close(&self) {
        self.closed.store(1, Ordering::SeqCst);
        let _ = futex::wake(&self.closed, Flags::empty(), u32::MAX >> 1);
    }

    /// Sleeps while a word has this value, at most until the end or until `until` on the monotonic clock.
    pub(crate) fn sleep(&self, word: &AtomicU32, value: u32, until: Option<Timespec>) {
        /// Whether waiting on two words failed once: the kernel is too old, or a filter forbids it.
        static KNOWS_ONE: OnceLock<()> = OnceLock::new();
        if KNOWS_ONE.get().is_none() {
            let both = [wait(word, value), wait(&self.closed, 0)];
            let slept = futex::waitv(
                &both,
                WaitvFlags::empty(),
                until.as_ref(),
                ClockId::Monotonic,
            );
            if !matches!(slept, Err(Errno::NOSYS | Errno::PERM)) {
                return;
            }
            KNOWS_ONE.get_or_init(|| ());
        }
        if !self.is_closed() {
            let _ = futex::wait(word, Flags::empty(), value, Some(&NAP));
        }
    }
}

/// Sleeps while a word has this value. Only for a side that trusts its peer: a worker, its own host.
pub(crate) fn sleep_among_friends(word: &AtomicU32, value: u32) {
    let _ = futex::wait(word, Flags::empty(), value, None);
}

fn wait(word: &AtomicU32, value: u32) -> Wait {
    let mut wait = Wait::new();
    wait.val = value.into();
    wait.uaddr = WaitPtr::new(ptr::from_ref(word).cast_mut().cast());
    wait.flags = WaitFlags::SIZE_U32;
    wait
}
