//! The called side: takes calls and writes replies.
//!
//! A worker serves its host through it, and a host serves workers whose plugins call others. For the
//! latter it trusts nothing: it keeps in private memory which slots and areas are in use, copies
//! lengths once before it checks them, and distinguishes a peer that broke the protocol from one that has
//! ended.

mod taken;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

pub use self::taken::{Taken, Writer};
use rustix::fs::Timespec;

use crate::{
    Breach, Geometry,
    alarms::Alarms,
    memory::Memory,
    now_ns,
    parking::{self, Parking},
    slot::{Slot, WITHDRAWN},
    spin::Spin,
};

/// The called side of a shared memory.
#[derive(Debug)]
pub struct Server {
    memory: Memory,
    spin: Spin,
    /// Whether a thread polls for calls; one is enough.
    looking: AtomicBool,
    parking: Parking,
    /// The limit on needless wake-ups by an untrusted caller.
    alarms: Option<Alarms>,
    /// One bit per slot whose call is under way.
    slots: AtomicU32,
    /// One bit per area that belongs to such a call.
    areas: AtomicU32,
}

/// Why there is no next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// [`Server::hang_up`] was called.
    #[error("the caller has hung up")]
    HungUp,
    /// What the caller wrote makes no sense.
    #[error("the caller broke the protocol: {0}")]
    Broken(#[from] Breach),
}

impl Server {
    /// Creates a shared memory for calls from an untrusted worker. The descriptor is for the worker.
    ///
    /// # Errors
    /// The system's error.
    pub fn create(geometry: Geometry) -> io::Result<(Self, OwnedFd)> {
        let (memory, file) = Memory::create(geometry)?;
        // A worker could make a polling host spin without ever sleeping.
        let server = Self::over(memory, Spin::never(), Some(Alarms::new()));
        Ok((server, file))
    }

    /// Maps the memory that the host created.
    ///
    /// # Errors
    /// The system's error, or that the memory has another geometry.
    pub fn open(file: impl AsFd, geometry: Geometry) -> io::Result<Self> {
        let spin = Spin::new(geometry.cores);
        Ok(Self::over(Memory::open(file, geometry)?, spin, None))
    }

    fn over(memory: Memory, spin: Spin, alarms: Option<Alarms>) -> Self {
        Self {
            memory,
            spin,
            looking: AtomicBool::new(false),
            parking: Parking::new(),
            alarms,
            slots: AtomicU32::new(0),
            areas: AtomicU32::new(0),
        }
    }

    /// Number of calls that were taken and are not answered yet.
    pub fn under_way(&self) -> u32 {
        self.slots.load(Ordering::Relaxed).count_ones()
    }

    /// Ends all waiting and takes no further call, whatever the other side writes and to whichever word
    /// it has moved sleeping threads.
    pub fn hang_up(&self) {
        self.parking.close();
    }

    /// Counts a log record that was dropped for lack of room.
    pub fn count_dropped_log(&self) {
        self.memory.head().dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// How many slots may hold a call.
    fn used(&self) -> Result<u32, Breach> {
        let used = self.memory.head().used.load(Ordering::SeqCst);
        if used > self.memory.geometry.slots {
            return Err(Breach::NoSuchSlot);
        }
        Ok(used)
    }

    /// Takes the call of a slot, if it holds one that was neither taken nor withdrawn.
    fn claim(&self, slot: &Slot) -> Option<u32> {
        let (claim, posted) = newest(slot)?;
        let exchange =
            slot.claim
                .compare_exchange(claim, posted, Ordering::SeqCst, Ordering::SeqCst);
        exchange.is_ok().then_some(posted)
    }

    /// The area that a slot names, if it is a valid one.
    fn area(&self, slot: &Slot) -> Result<Option<u32>, Breach> {
        let Some(area) = slot.area.load(Ordering::Relaxed).checked_sub(1) else {
            return Ok(None);
        };
        if area >= self.memory.geometry.areas {
            return Err(Breach::NoSuchArea);
        }
        if !occupy(&self.areas, area) {
            return Err(Breach::AreaInUse);
        }
        Ok(Some(area))
    }

    /// Polls for a call for a while. Returns whether there is one.
    fn poll(&self) -> bool {
        if !self.spin.pays() || self.looking.swap(true, Ordering::Relaxed) {
            return false;
        }
        // It stays set when a call is found: the next poll follows soon, and resetting it each time would
        // cost a write to a shared line.
        let looks = &self.memory.head().looks;
        if looks.load(Ordering::Relaxed) == 0 {
            looks.store(1, Ordering::SeqCst);
        }
        let found = self.spin.poll(|| self.is_called());
        if !found {
            looks.store(0, Ordering::SeqCst);
        }
        self.looking.store(false, Ordering::Relaxed);
        found
    }

    /// Whether there is a call to take, or the caller broke the protocol.
    fn is_called(&self) -> bool {
        let used = self.memory.head().used.load(Ordering::SeqCst);
        let slots = 0..used.min(self.memory.geometry.slots);
        used > self.memory.geometry.slots
            || slots
                .into_iter()
                .any(|number| newest(self.memory.slot(number)).is_some())
    }

    fn sleep(&self) {
        let head = self.memory.head();
        let began = now_ns();
        let bell = head.bell.load(Ordering::SeqCst);
        head.sleepers.fetch_add(1, Ordering::SeqCst);
        if !self.looking.load(Ordering::Relaxed) && head.looks.load(Ordering::Relaxed) != 0 {
            head.looks.store(0, Ordering::SeqCst);
        }
        // A call that is posted from here on rings the bell.
        if !self.is_called() {
            self.wait(&head.bell, bell, 0);
        }
        head.sleepers.fetch_sub(1, Ordering::SeqCst);
        self.spin.slept(now_ns() - began);
    }

    /// Sleeps while a word has this value, at most until the end or until `until_ns`, if that is not 0.
    fn wait(&self, word: &AtomicU32, value: u32, until_ns: u64) {
        match self.alarms {
            Some(_) => self.parking.sleep(word, value, point(until_ns)),
            None => parking::park_trusting_peer(word, value),
        }
    }

    /// Whether the other side may cause one more wake-up. Every wake-up counts, no matter who caused it.
    fn may_sleep(&self) -> bool {
        self.alarms.as_ref().is_none_or(Alarms::allow)
    }
}

/// A slot's claim, and the number of its call if the claim is for another one.
fn newest(slot: &Slot) -> Option<(u32, u32)> {
    // In this order: if a call comes and goes in between, exchanging the claim fails.
    let claim = slot.claim.load(Ordering::SeqCst);
    let posted = slot.posted.load(Ordering::SeqCst);
    ((posted ^ claim) & !WITHDRAWN != 0).then_some((claim, posted))
}

/// A time on the monotonic clock; none for 0.
fn point(ns: u64) -> Option<Timespec> {
    const SECOND: u64 = 1_000_000_000;
    let point = Timespec {
        tv_sec: i64::try_from(ns / SECOND).unwrap_or(i64::MAX),
        tv_nsec: (ns % SECOND) as i64,
    };
    (ns != 0).then_some(point)
}

/// Marks a number as used; returns whether it was free.
fn occupy(numbers: &AtomicU32, number: u32) -> bool {
    numbers.fetch_or(1 << number, Ordering::Relaxed) & 1 << number == 0
}
