//! The worker's side: takes calls, writes replies.

use std::{
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
};

use hotmerge_abi::{self as abi, CallContext, Status};
use rustix::thread::futex::{self, Flags};

use crate::{
    Geometry,
    memory::Memory,
    now_ns,
    slot::{NO_AREA, Slot, state},
    spin::Spin,
};

/// The worker's side of a shared memory.
#[derive(Debug)]
pub struct Server {
    memory: Memory,
    spin: Spin,
    /// One thread that looks for calls is enough.
    looking: AtomicBool,
}

impl Server {
    /// Maps the memory that the host made.
    ///
    /// # Errors
    /// What the system says, or that it is another memory.
    pub fn open(file: impl AsFd, geometry: Geometry) -> io::Result<Self> {
        Ok(Self {
            memory: Memory::open(file, geometry)?,
            spin: Spin::new(),
            looking: AtomicBool::new(false),
        })
    }

    /// Waits for the next call and takes it. Any thread may.
    pub fn next(&self) -> Taken<'_> {
        loop {
            if let Some(taken) = self.try_next() {
                return taken;
            }
            if self.look() {
                continue;
            }
            self.sleep();
        }
    }

    /// Whether no thread waits for the next call.
    pub fn is_short_of_threads(&self) -> bool {
        let head = self.memory.head();
        head.sleepers.load(Ordering::SeqCst) == 0 && head.spinners.load(Ordering::SeqCst) == 0
    }

    /// Counts a log record that found no room.
    pub fn count_dropped_log(&self) {
        self.memory.head().dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn try_next(&self) -> Option<Taken<'_>> {
        let ready = &self.memory.head().ready;
        let mut bits = ready.load(Ordering::SeqCst);
        while bits != 0 {
            let bit = bits & bits.wrapping_neg();
            let number = bit.trailing_zeros();
            if number >= self.memory.geometry.slots {
                return None;
            }
            match ready.compare_exchange_weak(bits, bits & !bit, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => {
                    let slot = self.memory.slot(number);
                    slot.begun.store(1, Ordering::Relaxed);
                    return Some(Taken {
                        server: self,
                        slot,
                        number,
                    });
                }
                Err(now) => bits = now,
            }
        }
        None
    }

    /// Looks for a call for a while. Returns whether there is one.
    fn look(&self) -> bool {
        if self.looking.swap(true, Ordering::Relaxed) {
            return false;
        }
        let head = self.memory.head();
        head.spinners.fetch_add(1, Ordering::SeqCst);
        let found = self.spin.look(|| head.ready.load(Ordering::Relaxed) != 0);
        head.spinners.fetch_sub(1, Ordering::SeqCst);
        self.looking.store(false, Ordering::Relaxed);
        // Who posted while this thread looked has woken nobody. One call is this thread's.
        let ready = head.ready.load(Ordering::SeqCst);
        if ready.count_ones() > 1 && head.sleepers.load(Ordering::SeqCst) > 0 {
            let _ = futex::wake(&head.ready, Flags::empty(), 1);
        }
        found || ready != 0
    }

    fn sleep(&self) {
        let head = self.memory.head();
        let began = now_ns();
        head.sleepers.fetch_add(1, Ordering::SeqCst);
        // A call that was posted before is seen by the kernel's comparison.
        let _ = futex::wait(&head.ready, Flags::empty(), 0, None);
        head.sleepers.fetch_sub(1, Ordering::SeqCst);
        self.spin.slept(now_ns() - began);
    }
}

/// A call that this worker has taken. It must be answered by [`Taken::finish`].
#[derive(Debug)]
pub struct Taken<'a> {
    server: &'a Server,
    slot: &'a Slot,
    number: u32,
}

impl<'a> Taken<'a> {
    /// Which slot it is in.
    pub fn slot(&self) -> u32 {
        self.number
    }

    /// Which operation is asked for.
    pub fn op(&self) -> u32 {
        self.slot.op.load(Ordering::Relaxed)
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_cancelled(&self) -> bool {
        self.slot.cancelled.load(Ordering::Relaxed) != 0
    }

    /// The call's context.
    pub fn context(&self) -> CallContext {
        self.slot.context()
    }

    /// Method and request, in place.
    pub fn request(&self) -> (&'a [u8], &'a [u8]) {
        let method = self.slot.method_len.load(Ordering::Relaxed) as usize;
        let request = self.slot.request_len.load(Ordering::Relaxed) as usize;
        let area = self.slot.area.load(Ordering::Relaxed).checked_sub(1);
        let room = self.server.memory.geometry.room(self.number, area);
        // SAFETY: the host writes to a slot only before it posts and after it was answered, and
        // this value exists in between.
        let both = unsafe { self.server.memory.borrow(room.request, method + request) };
        both.split_at(method)
    }

    /// Where the reply goes.
    pub fn writer(&self) -> Writer<'a> {
        self.slot.media_type_len.store(0, Ordering::Relaxed);
        let limit = self.slot.reply_limit.load(Ordering::Relaxed);
        Writer {
            server: self.server,
            slot: self.slot,
            number: self.number,
            len: 0,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        }
    }

    /// Answers the call.
    pub fn finish(self, status: Status, writer: &Writer<'_>) {
        self.slot.status.store(status, Ordering::Relaxed);
        self.slot
            .reply_len
            .store(writer.len as u64, Ordering::Relaxed);
        self.slot.state.store(state::DONE, Ordering::SeqCst);
        wake_caller(self.slot);
    }
}

fn wake_caller(slot: &Slot) {
    if slot.caller_sleeps.load(Ordering::SeqCst) != 0 {
        let _ = futex::wake(&slot.state, Flags::empty(), 1);
    }
}

/// Writes a reply where the host reads it.
#[derive(Debug)]
pub struct Writer<'a> {
    server: &'a Server,
    slot: &'a Slot,
    number: u32,
    len: usize,
    limit: usize,
}

impl Writer<'_> {
    /// Appends bytes. A reply that outgrows its slot moves to an area that the host grants.
    pub fn write(&mut self, bytes: &[u8]) -> Status {
        let end = self.len.saturating_add(bytes.len());
        if end > self.limit {
            return abi::STATUS_REPLY_TOO_LARGE;
        }
        let geometry = &self.server.memory.geometry;
        let mut area = self.area();
        if area.is_none() && end > geometry.small_bytes as usize {
            if geometry.areas == 0 || end as u64 > geometry.area_bytes {
                return abi::STATUS_REPLY_TOO_LARGE;
            }
            area = self.ask_for_area();
        }
        let room = geometry.room(self.number, area);
        if end > room.bytes {
            return abi::STATUS_REPLY_TOO_LARGE;
        }
        self.server.memory.write(room.reply() + self.len, bytes);
        self.len = end;
        abi::STATUS_OK
    }

    /// Drops what was written so far.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Sets the media type.
    pub fn media_type(&mut self, media_type: &[u8]) -> Status {
        if self.slot.put_media_type(media_type) {
            abi::STATUS_OK
        } else {
            abi::STATUS_FAILED
        }
    }

    fn area(&self) -> Option<u32> {
        self.slot.area.load(Ordering::Relaxed).checked_sub(1)
    }

    fn ask_for_area(&self) -> Option<u32> {
        let small = self.server.memory.geometry.room(self.number, None);
        self.slot.server_sleeps.store(1, Ordering::SeqCst);
        self.slot.state.store(state::WANTS_AREA, Ordering::SeqCst);
        wake_caller(self.slot);
        while self.slot.state.load(Ordering::SeqCst) == state::WANTS_AREA {
            let _ = futex::wait(&self.slot.state, Flags::empty(), state::WANTS_AREA, None);
        }
        self.slot.server_sleeps.store(0, Ordering::Relaxed);
        debug_assert!(self.slot.area.load(Ordering::Relaxed) != NO_AREA || self.area().is_none());
        let area = self.area()?;
        let large = self.server.memory.geometry.room(self.number, Some(area));
        // SAFETY: only this call's thread writes to the slot's own room.
        let written = unsafe { self.server.memory.borrow(small.reply(), self.len) };
        self.server.memory.write(large.reply(), written);
        Some(area)
    }
}
