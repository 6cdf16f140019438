//! Where the threads of the called side sleep: on a word of the shared memory, which the other side
//! may ring, and at the same time on a private word of this process.
//!
//! A worker can move a sleeper from its bell to any other word (`FUTEX_REQUEUE`), where nothing would
//! ever wake it. The end is therefore announced on a word that the worker cannot reach.
//!
//! Absent on purpose: what the threads wait for.

use std::{
    ptr,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
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

/// The private word, and how threads wait on it.
#[derive(Debug)]
pub(crate) struct Parking {
    /// 0 until the end, then 1.
    closed: AtomicU32,
    /// Whether waiting on two words failed once: the kernel is too old, or a filter forbids it.
    has_waitv_failed: AtomicBool,
}

impl Parking {
    pub(crate) fn new() -> Self {
        Self {
            closed: AtomicU32::new(0),
            has_waitv_failed: AtomicBool::new(false),
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
        if !self.has_waitv_failed.load(Ordering::Relaxed) {
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
            self.has_waitv_failed.store(true, Ordering::Relaxed);
        }
        if !self.is_closed() {
            let _ = futex::wait(word, Flags::empty(), value, Some(&NAP));
        }
    }
}

/// Sleeps while a word has this value. Only for a side that trusts its peer: a worker, its own host.
pub(crate) fn park_trusting_peer(word: &AtomicU32, value: u32) {
    let _ = futex::wait(word, Flags::empty(), value, None);
}

fn wait(word: &AtomicU32, value: u32) -> Wait {
    let mut wait = Wait::new();
    wait.val = value.into();
    wait.uaddr = WaitPtr::new(ptr::from_ref(word).cast_mut().cast());
    wait.flags = WaitFlags::SIZE_U32;
    wait
}
