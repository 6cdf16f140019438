//! The side that calls and waits: the host, which trusts nothing that the worker writes, or a worker
//! whose plugin calls others.

mod call;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use rustix::thread::futex::{self, Flags};

use crate::{
    Cancel, Geometry, NoAnswer, Request, Requested,
    memory::Memory,
    pool::{Pool, passed},
    shares::Shares,
    slot::{NO_AREA, state},
    spin::Spin,
};

/// The host's private record of a slot.
#[derive(Debug, Default)]
struct Private {
    /// The number of its newest call.
    newest: AtomicU32,
    /// The operation that this call requests.
    op: AtomicU32,
    /// The value of its state word until the called side changes it.
    state: AtomicU32,
    /// Its area, encoded as in [`Slot::area`].
    area: AtomicU32,
    /// Whether it is held on behalf of a plugin.
    is_shared: AtomicBool,
    /// If nobody waits for its reply: when the call should have ended, in nanoseconds; otherwise 0.
    abandoned_ns: AtomicU64,
}

/// The host's side of a shared memory.
#[derive(Debug)]
pub struct Caller {
    memory: Memory,
    slots: Pool,
    shares: Shares,
    areas: Pool,
    private: Vec<Private>,
    /// How many slots have been used so far.
    used: AtomicU32,
    abandoned: AtomicU32,
    /// Calls in a row that passed their deadlines before anybody took them.
    unanswered: AtomicU32,
    gone: AtomicBool,
    /// How many times this side woke all callers.
    wakes: AtomicU32,
    spin: Spin,
}

impl Caller {
    /// Makes a shared memory. The descriptor is for the worker.
    ///
    /// # Errors
    /// The system's error.
    pub fn create(geometry: Geometry) -> io::Result<(Self, OwnedFd)> {
        let (memory, file) = Memory::create(geometry)?;
        Ok((Self::over(memory), file))
    }

    /// Maps the memory that the called side created.
    ///
    /// # Errors
    /// The system's error, or that the memory has another geometry.
    pub fn open(file: impl AsFd, geometry: Geometry) -> io::Result<Self> {
        Ok(Self::over(Memory::open(file, geometry)?))
    }

    fn over(memory: Memory) -> Self {
        let Geometry {
            slots,
            areas,
            cores,
            ..
        } = memory.geometry;
        Self {
            slots: Pool::new(slots),
            shares: Shares::new(slots),
            areas: Pool::new(areas),
            private: (0..slots).map(|_| Private::default()).collect(),
            used: AtomicU32::new(0),
            abandoned: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
            gone: AtomicBool::new(false),
            wakes: AtomicU32::new(0),
            spin: Spin::new(cores),
            memory,
        }
    }

    /// Ends every call and permits no new one: the worker is gone.
    pub fn hang_up(&self) {
        self.gone.store(true, Ordering::SeqCst);
        for number in 0..self.memory.geometry.slots {
            // The other bits keep the progress of the call.
            let state = &self.memory.slot(number).state;
            state.fetch_or(state::GONE, Ordering::SeqCst);
        }
        self.wake_all();
    }

    /// Whether [`Caller::hang_up`] was called.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// The earliest time by which an abandoned call should have ended, in nanoseconds on the monotonic
    /// clock. It lies in the future if the call was cancelled before its deadline, and is
    /// [`u64::MAX`] if the call has no deadline.
    pub fn abandoned_due(&self) -> Option<u64> {
        self.reclaim();
        let times = self.private.iter();
        times
            .map(|private| private.abandoned_ns.load(Ordering::Relaxed))
            .filter(|due| *due != 0)
            .min()
    }

    /// How many calls in a row passed their deadlines before the worker took them; 0 if it shows
    /// another sign of life, as a worker does whose threads are all busy.
    pub fn unanswered(&self) -> u32 {
        let is_taken = |number: u32| {
            let (slot, private) = (self.memory.slot(number), &self.private[number as usize]);
            let newest = private.newest.load(Ordering::Relaxed);
            slot.claim.load(Ordering::SeqCst) == newest
                && slot.state.load(Ordering::SeqCst) != state::of(newest, state::DONE)
        };
        let used = self.used.load(Ordering::Relaxed);
        match self.unanswered.load(Ordering::Relaxed) {
            count if count > 0 && !(0..used).any(is_taken) => count,
            _ => 0,
        }
    }

    /// Number of log records that the worker dropped for lack of room, as the worker reports it.
    pub fn dropped_logs(&self) -> u64 {
        self.memory.head().dropped.load(Ordering::Relaxed)
    }

    /// What the worker has taken and not answered. Only for reports: nothing may depend on it.
    pub fn under_way(&self) -> Vec<Requested> {
        let is_taken = |number: &u32| {
            let (slot, private) = (self.memory.slot(*number), &self.private[*number as usize]);
            let newest = private.newest.load(Ordering::Relaxed);
            slot.claim.load(Ordering::SeqCst) == newest
                && private.state.load(Ordering::Relaxed) != state::of(newest, state::DONE)
        };
        let used = 0..self.used.load(Ordering::Relaxed);
        let taken = used.filter(is_taken);
        taken.filter_map(|number| self.describe(number)).collect()
    }

    /// The request in a slot that the worker named, or the last one that was. Only for reports: nothing
    /// may depend on it.
    pub fn describe(&self, number: u32) -> Option<Requested> {
        let number = (number < self.memory.geometry.slots).then_some(number)?;
        let slot = self.memory.slot(number);
        let op = self.private[number as usize].op.load(Ordering::Relaxed);
        let method_len = slot.method_len.load(Ordering::Relaxed) as usize;
        let request_len = slot.request_len.load(Ordering::Relaxed) as usize;
        let area = area(self.private[number as usize].area.load(Ordering::Relaxed));
        let len = method_len.saturating_add(request_len);
        let begin = self.memory.geometry.request(number, area, len);
        let mut name = Vec::new();
        self.memory.read(begin, method_len.min(64), &mut name);
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let method = String::from_utf8_lossy(name)
            .chars()
            .filter(|sign| !sign.is_control())
            .collect();
        Some(Requested {
            op,
            method,
            context: slot.context(),
        })
    }

    fn take_slot(&self, request: &Request<'_>) -> Result<u32, NoAnswer> {
        let reason = std::cell::Cell::new(NoAnswer::Deadline);
        let go_on = || {
            self.reclaim();
            self.ended(request)
                .map(|failure| reason.set(failure))
                .is_none()
        };
        let taken = match request.on_behalf_of {
            None => self.slots.take(go_on),
            Some(holder) => {
                let take = || self.shares.try_take(&self.slots, holder);
                self.slots.take_by(take, go_on)
            }
        };
        let number = taken.ok_or(reason.get())?;
        let is_shared = &self.private[number as usize].is_shared;
        is_shared.store(request.on_behalf_of.is_some(), Ordering::Relaxed);
        if self.is_gone() {
            self.give_slot(number);
            return Err(NoAnswer::Gone { begun: false });
        }
        Ok(number)
    }

    /// Why the caller should stop waiting, if it should.
    fn ended(&self, request: &Request<'_>) -> Option<NoAnswer> {
        if self.is_gone() {
            return Some(NoAnswer::Gone { begun: false });
        }
        if request.cancel.is_some_and(Cancel::is_set) {
            return Some(NoAnswer::Cancelled);
        }
        (passed(request.context.deadline_ns) || passed(request.give_up_ns))
            .then_some(NoAnswer::Deadline)
    }

    /// Frees the slots of abandoned calls that have returned since.
    fn reclaim(&self) {
        let mut abandoned = self.abandoned.load(Ordering::SeqCst);
        while abandoned != 0 {
            let number = abandoned.trailing_zeros();
            let bit = 1 << number;
            abandoned &= !bit;
            let (slot, private) = (self.memory.slot(number), &self.private[number as usize]);
            let done = state::of(private.newest.load(Ordering::Relaxed), state::DONE);
            if slot.state.load(Ordering::SeqCst) == done
                && self.abandoned.fetch_and(!bit, Ordering::SeqCst) & bit != 0
            {
                slot.cancelled.store(0, Ordering::Relaxed);
                private.state.store(done, Ordering::Relaxed);
                private.abandoned_ns.store(0, Ordering::Relaxed);
                self.free(number);
            }
        }
    }

    fn free(&self, number: u32) {
        let area = area(
            self.private[number as usize]
                .area
                .swap(NO_AREA, Ordering::Relaxed),
        );
        if let Some(area) = area {
            let Memory { geometry, .. } = &self.memory;
            self.memory.clear(geometry.room(number, Some(area)));
            let slot = self.memory.slot(number);
            slot.area.store(NO_AREA, Ordering::Relaxed);
            self.areas.give(area);
        }
        self.give_slot(number);
    }

    fn give_slot(&self, number: u32) {
        let private = &self.private[number as usize];
        if private.is_shared.swap(false, Ordering::Relaxed) {
            self.shares.give(number);
        }
        self.slots.give(number);
    }

    /// Cancels the calls that carry this mark. Their callers return at once; the plugin may keep
    /// working until the call's deadline.
    pub fn cancel(&self, mark: &Cancel) {
        mark.set();
        self.wake_all();
    }

    /// Wakes every waiting thread of this side.
    fn wake_all(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        for number in 0..self.memory.geometry.slots {
            let _ = futex::wake(
                &self.memory.slot(number).state,
                Flags::empty(),
                u32::MAX >> 1,
            );
        }
        self.slots.wake_all();
        self.areas.wake_all();
    }
}

fn area(word: u32) -> Option<u32> {
    word.checked_sub(1)
}
