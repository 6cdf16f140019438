//! The side that is called: takes calls, writes replies.
//!
//! A worker serves its host through it, and a host serves the workers whose plugins call
//! others. For the second case it believes nothing: which slots and areas are in use it keeps
//! in memory of its own, lengths are copied once and checked then, and whoever breaks the
//! rules is told apart from whoever is done.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use hotmerge_abi::{self as abi, CallContext, Status};
use rustix::thread::futex::{self, Flags};

use crate::{
    Geometry, METHOD_LIMIT,
    memory::Memory,
    now_ns,
    slot::{LOOKING, Slot, state},
    spin::Spin,
};

/// The called side of a shared memory.
#[derive(Debug)]
pub struct Server {
    memory: Memory,
    spin: Spin,
    /// One thread that looks for calls is enough.
    looking: AtomicBool,
    /// Threads that wait for a call.
    idle: AtomicU32,
    /// Threads that may sleep on a word of the shared memory.
    pub(crate) asleep: AtomicU32,
    /// One bit a slot whose call is under way.
    slots: AtomicU32,
    /// One bit an area that belongs to such a call.
    areas: AtomicU32,
    closed: AtomicBool,
}

/// Why there is no next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// [`Server::hang_up`] was called.
    #[error("nobody calls any more")]
    HungUp,
    /// What the caller wrote makes no sense.
    #[error("the caller broke the protocol: {0}")]
    Broken(&'static str),
}

impl Server {
    /// Makes a shared memory to be called through by a worker that is not trusted. The
    /// descriptor is for it.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(geometry: Geometry) -> io::Result<(Self, OwnedFd)> {
        let (memory, file) = Memory::create(geometry)?;
        // A worker could make a host look for calls without ever sleeping.
        Ok((Self::over(memory, Spin::never()), file))
    }

    /// Maps the memory that the host made.
    ///
    /// # Errors
    /// What the system says, or that it is another memory.
    pub fn open(file: impl AsFd, geometry: Geometry) -> io::Result<Self> {
        Ok(Self::over(Memory::open(file, geometry)?, Spin::new()))
    }

    fn over(memory: Memory, spin: Spin) -> Self {
        Self {
            memory,
            spin,
            looking: AtomicBool::new(false),
            idle: AtomicU32::new(0),
            asleep: AtomicU32::new(0),
            slots: AtomicU32::new(0),
            areas: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Waits for the next call and takes it. Any thread may.
    ///
    /// # Errors
    /// Why there is none.
    pub fn next(&self) -> Result<Taken<'_>, Ended> {
        self.idle.fetch_add(1, Ordering::SeqCst);
        let next = loop {
            if self.closed.load(Ordering::SeqCst) {
                break Err(Ended::HungUp);
            }
            match self.try_next() {
                Ok(None) if self.look() => {}
                Ok(None) => self.sleep(),
                Ok(Some(taken)) => break Ok(taken),
                Err(what) => break Err(Ended::Broken(what)),
            }
        };
        self.idle.fetch_sub(1, Ordering::SeqCst);
        next
    }

    /// Whether no thread waits for the next call.
    pub fn is_short_of_threads(&self) -> bool {
        self.idle.load(Ordering::SeqCst) == 0
    }

    /// Ends all waiting: no call is taken any more, whatever the other side writes.
    pub fn hang_up(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // A thread that saw no end before and falls asleep after a wake-up is woken by the next.
        while self.asleep.load(Ordering::SeqCst) > 0 {
            let everybody = u32::MAX >> 1;
            let _ = futex::wake(&self.memory.head().ready, Flags::empty(), everybody);
            for number in 0..self.memory.geometry.slots {
                let _ = futex::wake(&self.memory.slot(number).state, Flags::empty(), everybody);
            }
            thread::yield_now();
        }
    }

    /// Counts a log record that found no room.
    pub fn count_dropped_log(&self) {
        self.memory.head().dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn try_next(&self) -> Result<Option<Taken<'_>>, &'static str> {
        let ready = &self.memory.head().ready;
        let mut bits = ready.load(Ordering::SeqCst);
        // Who never looks is not to be kept awake by somebody who says so and says not.
        if bits & LOOKING != 0 && !self.spin.ever_pays() {
            return Err("a thread that looks for calls and is not there");
        }
        while bits & !LOOKING != 0 {
            let bit = bits & bits.wrapping_neg();
            let number = bit.trailing_zeros();
            if number >= self.memory.geometry.slots {
                return Err("a call in a slot that is not there");
            }
            match ready.compare_exchange_weak(bits, bits & !bit, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => return self.take(number).map(Some),
                Err(now) => bits = now,
            }
        }
        Ok(None)
    }

    /// Copies what a call is made of, and checks the copy.
    fn take(&self, number: u32) -> Result<Taken<'_>, &'static str> {
        let slot = self.memory.slot(number);
        // Most requests lie there, and come while the rest is looked at.
        self.memory.touch(self.memory.geometry.room(number, None));
        if !occupy(&self.slots, number) {
            return Err("two calls in one slot");
        }
        let area = self.area(slot)?;
        let method_len = slot.method_len.load(Ordering::Relaxed) as usize;
        let request_len = slot.request_len.load(Ordering::Relaxed) as usize;
        let room = self.memory.geometry.room(number, area).bytes;
        if method_len > METHOD_LIMIT || method_len.saturating_add(request_len) > room {
            return Err("a request that is larger than its room");
        }
        Ok(Taken {
            server: self,
            slot,
            number,
            op: slot.op.load(Ordering::Relaxed),
            area,
            method_len,
            request_len,
        })
    }

    /// The area that a slot says it has, if that can be.
    fn area(&self, slot: &Slot) -> Result<Option<u32>, &'static str> {
        let Some(area) = slot.area.load(Ordering::Relaxed).checked_sub(1) else {
            return Ok(None);
        };
        if area >= self.memory.geometry.areas {
            return Err("an area that is not there");
        }
        if !occupy(&self.areas, area) {
            return Err("two calls in one area");
        }
        Ok(Some(area))
    }

    /// Looks for a call for a while. Returns whether there is one.
    fn look(&self) -> bool {
        if !self.spin.pays() || self.looking.swap(true, Ordering::Relaxed) {
            return false;
        }
        let head = self.memory.head();
        head.ready.fetch_or(LOOKING, Ordering::SeqCst);
        self.spin
            .look(|| head.ready.load(Ordering::Relaxed) & !LOOKING != 0);
        let ready = head.ready.fetch_and(!LOOKING, Ordering::SeqCst) & !LOOKING;
        self.looking.store(false, Ordering::Relaxed);
        // Who posted while this thread looked has woken nobody. One call is this thread's.
        if ready.count_ones() > 1 && head.sleepers.load(Ordering::SeqCst) > 0 {
            let _ = futex::wake(&head.ready, Flags::empty(), 1);
        }
        ready != 0
    }

    fn sleep(&self) {
        let head = self.memory.head();
        let began = now_ns();
        head.sleepers.fetch_add(1, Ordering::SeqCst);
        // A call that is posted from here on is seen by the kernel's comparison. While another
        // thread looks, it is that one's.
        let ready = head.ready.load(Ordering::SeqCst);
        if ready & !LOOKING == 0 {
            self.wait(&head.ready, ready);
        }
        head.sleepers.fetch_sub(1, Ordering::SeqCst);
        self.spin.slept(now_ns() - began);
    }

    /// Sleeps while a word has a value, but not for longer than until the end.
    fn wait(&self, word: &AtomicU32, value: u32) {
        self.asleep.fetch_add(1, Ordering::SeqCst);
        if !self.closed.load(Ordering::SeqCst) {
            let _ = futex::wait(word, Flags::empty(), value, None);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether a number was free; it is not afterwards.
fn occupy(numbers: &AtomicU32, number: u32) -> bool {
    numbers.fetch_or(1 << number, Ordering::Relaxed) & 1 << number == 0
}

/// A call that was taken. It must be answered by [`Taken::finish`].
#[derive(Debug)]
pub struct Taken<'a> {
    server: &'a Server,
    slot: &'a Slot,
    number: u32,
    op: u32,
    area: Option<u32>,
    method_len: usize,
    request_len: usize,
}

impl<'a> Taken<'a> {
    /// Which slot it is in.
    pub fn slot(&self) -> u32 {
        self.number
    }

    /// Which operation is asked for.
    pub fn op(&self) -> u32 {
        self.op
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_cancelled(&self) -> bool {
        self.slot.cancelled.load(Ordering::Relaxed) != 0
    }

    /// The call's context.
    pub fn context(&self) -> CallContext {
        self.slot.context()
    }

    fn room(&self) -> usize {
        let geometry = &self.server.memory.geometry;
        geometry.room(self.number, self.area).request
    }

    /// Method and request, in place.
    ///
    /// # Safety
    /// The caller must be trusted to leave them alone until this call is answered.
    pub unsafe fn request(&self) -> (&'a [u8], &'a [u8]) {
        let len = self.method_len + self.request_len;
        // SAFETY: the other side writes to a slot only before it posts and after it was
        // answered; this value exists in between, and whoever calls vouches for the other side.
        let both = unsafe { self.server.memory.borrow(self.room(), len) };
        both.split_at(self.method_len)
    }

    /// Copies method and request.
    pub fn copy_request(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut method, mut request) = (Vec::new(), Vec::new());
        let memory = &self.server.memory;
        memory.read(self.room(), self.method_len, &mut method);
        let begin = self.room() + self.method_len;
        memory.read(begin, self.request_len, &mut request);
        (method, request)
    }

    /// Where the reply goes.
    pub fn writer(&self) -> Writer<'a> {
        let limit = self.slot.reply_limit.load(Ordering::Relaxed);
        Writer {
            server: self.server,
            slot: self.slot,
            number: self.number,
            area: self.area,
            len: 0,
            media_type_len: 0,
            limit: limit as usize,
        }
    }

    /// Answers the call.
    pub fn finish(self, status: Status, writer: &Writer<'_>) {
        // Before the other side knows: it uses both again at once.
        if let Some(area) = writer.area {
            self.server.areas.fetch_and(!(1 << area), Ordering::Relaxed);
        }
        let slots = &self.server.slots;
        slots.fetch_and(!(1 << self.number), Ordering::Relaxed);
        let slot = self.slot;
        slot.status.store(status, Ordering::Relaxed);
        slot.reply_len.store(writer.len as u64, Ordering::Relaxed);
        slot.media_type_len
            .store(writer.media_type_len, Ordering::Relaxed);
        slot.state.store(state::DONE, Ordering::SeqCst);
        wake_caller(slot);
    }
}

fn wake_caller(slot: &Slot) {
    if slot.caller_sleeps.load(Ordering::SeqCst) != 0 {
        let _ = futex::wake(&slot.state, Flags::empty(), 1);
    }
}

/// Writes a reply where the caller reads it.
#[derive(Debug)]
pub struct Writer<'a> {
    server: &'a Server,
    slot: &'a Slot,
    number: u32,
    area: Option<u32>,
    len: usize,
    media_type_len: u32,
    limit: usize,
}

impl Writer<'_> {
    /// Appends bytes. A reply that outgrows its slot moves to an area that the caller grants.
    pub fn write(&mut self, bytes: &[u8]) -> Status {
        let end = self.len.saturating_add(bytes.len());
        if end > self.limit {
            return abi::STATUS_REPLY_TOO_LARGE;
        }
        let geometry = &self.server.memory.geometry;
        if self.area.is_none() && end > geometry.small_bytes as usize {
            if geometry.areas == 0 || end as u64 > geometry.area_bytes {
                return abi::STATUS_REPLY_TOO_LARGE;
            }
            self.move_to_area();
        }
        let room = geometry.room(self.number, self.area);
        if end > room.bytes {
            return abi::STATUS_REPLY_TOO_LARGE;
        }
        self.server.memory.write(room.reply() + self.len, bytes);
        self.len = end;
        abi::STATUS_OK
    }

    /// A copy of what was written so far.
    pub fn written(&self) -> Vec<u8> {
        let room = self.server.memory.geometry.room(self.number, self.area);
        let mut bytes = Vec::new();
        self.server.memory.read(room.reply(), self.len, &mut bytes);
        bytes
    }

    /// Drops what was written so far.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Sets the media type.
    pub fn media_type(&mut self, media_type: &[u8]) -> Status {
        if self.slot.put_media_type(media_type) {
            self.media_type_len = media_type.len() as u32;
            abi::STATUS_OK
        } else {
            abi::STATUS_FAILED
        }
    }

    /// Asks for an area, and takes along what was written so far.
    fn move_to_area(&mut self) {
        let slot = self.slot;
        slot.server_sleeps.store(1, Ordering::SeqCst);
        slot.state.store(state::WANTS_AREA, Ordering::SeqCst);
        wake_caller(slot);
        let is_over = || {
            slot.cancelled.load(Ordering::SeqCst) != 0 || self.server.closed.load(Ordering::SeqCst)
        };
        while slot.state.load(Ordering::SeqCst) == state::WANTS_AREA && !is_over() {
            self.server.wait(&slot.state, state::WANTS_AREA);
        }
        slot.server_sleeps.store(0, Ordering::Relaxed);
        // Nonsense is as good as no area.
        let Ok(Some(area)) = self.server.area(slot) else {
            return;
        };
        let geometry = &self.server.memory.geometry;
        let (small, large) = (
            geometry.room(self.number, None),
            geometry.room(self.number, Some(area)),
        );
        let memory = &self.server.memory;
        memory.copy(small.reply(), large.reply(), self.len);
        self.area = Some(area);
    }
}
