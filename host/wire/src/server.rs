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
    slot::{INLINE_REPLY, Slot, WITHDRAWN, state},
    spin::Spin,
};

/// The called side of a shared memory.
#[derive(Debug)]
pub struct Server {
    memory: Memory,
    spin: Spin,
    /// One thread that looks for calls is enough.
    looking: AtomicBool,
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
        let spin = Spin::new(geometry.cores);
        Ok(Self::over(Memory::open(file, geometry)?, spin))
    }

    fn over(memory: Memory, spin: Spin) -> Self {
        Self {
            memory,
            spin,
            looking: AtomicBool::new(false),
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
        loop {
            if self.closed.load(Ordering::SeqCst) {
                return Err(Ended::HungUp);
            }
            match self.try_next() {
                Ok(None) if self.look() => {}
                Ok(None) => self.sleep(),
                Ok(Some(taken)) => return Ok(taken),
                Err(what) => return Err(Ended::Broken(what)),
            }
        }
    }

    /// How many calls have been taken and not answered yet.
    pub fn under_way(&self) -> u32 {
        self.slots.load(Ordering::Relaxed).count_ones()
    }

    /// Ends all waiting: no call is taken any more, whatever the other side writes.
    pub fn hang_up(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // A thread that saw no end before and falls asleep after a wake-up is woken by the next.
        while self.asleep.load(Ordering::SeqCst) > 0 {
            let everybody = u32::MAX >> 1;
            let bell = &self.memory.head().bell;
            bell.fetch_add(1, Ordering::SeqCst);
            let _ = futex::wake(bell, Flags::empty(), everybody);
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
        for number in 0..self.used()? {
            if let Some(call) = self.claim(self.memory.slot(number)) {
                return self.take(number, call).map(Some);
            }
        }
        Ok(None)
    }

    /// How many slots may have a call.
    fn used(&self) -> Result<u32, &'static str> {
        let used = self.memory.head().used.load(Ordering::SeqCst);
        if used > self.memory.geometry.slots {
            return Err("a call in a slot that is not there");
        }
        Ok(used)
    }

    /// Takes the call of a slot, if there is one that nobody has taken or withdrawn.
    fn claim(&self, slot: &Slot) -> Option<u32> {
        let (claim, posted) = newest(slot)?;
        let exchange =
            slot.claim
                .compare_exchange(claim, posted, Ordering::SeqCst, Ordering::SeqCst);
        exchange.is_ok().then_some(posted)
    }

    /// Copies what a call is made of, and checks the copy.
    fn take(&self, number: u32, call: u32) -> Result<Taken<'_>, &'static str> {
        let slot = self.memory.slot(number);
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
            call,
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
        // Left as it is by a call that is found: the next look is soon, and the caller need not
        // be told of each.
        let looks = &self.memory.head().looks;
        if looks.load(Ordering::Relaxed) == 0 {
            looks.store(1, Ordering::SeqCst);
        }
        let found = self.spin.look(|| self.is_called());
        if !found {
            looks.store(0, Ordering::SeqCst);
        }
        self.looking.store(false, Ordering::Relaxed);
        found
    }

    /// Whether there is a call to be taken, or a caller that breaks the rules.
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
        // A call that is posted from here on is told by the bell.
        if !self.is_called() {
            self.wait(&head.bell, bell);
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

/// What a slot's claim says, and the number of its call if that is another one.
fn newest(slot: &Slot) -> Option<(u32, u32)> {
    // In this order: if a call comes and goes in between, the claim is not what it was.
    let claim = slot.claim.load(Ordering::SeqCst);
    let posted = slot.posted.load(Ordering::SeqCst);
    ((posted ^ claim) & !WITHDRAWN != 0).then_some((claim, posted))
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
    /// Which of the slot's calls it is.
    call: u32,
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

    /// Where method and request lie.
    fn begin(&self) -> usize {
        let geometry = &self.server.memory.geometry;
        geometry.request(self.number, self.area, self.method_len + self.request_len)
    }

    /// Method and request, in place.
    ///
    /// # Safety
    /// The caller must be trusted to leave them alone until this call is answered.
    pub unsafe fn request(&self) -> (&'a [u8], &'a [u8]) {
        let len = self.method_len + self.request_len;
        // SAFETY: the other side writes to a slot only before it posts and after it was
        // answered; this value exists in between, and whoever calls vouches for the other side.
        let both = unsafe { self.server.memory.borrow(self.begin(), len) };
        both.split_at(self.method_len)
    }

    /// Copies method and request.
    pub fn copy_request(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut method, mut request) = (Vec::new(), Vec::new());
        let memory = &self.server.memory;
        let begin = self.begin();
        memory.read(begin, self.method_len, &mut method);
        memory.read(begin + self.method_len, self.request_len, &mut request);
        (method, request)
    }

    /// Where the reply goes.
    pub fn writer(&self) -> Writer<'a> {
        let limit = self.slot.reply_limit.load(Ordering::Relaxed);
        Writer {
            server: self.server,
            slot: self.slot,
            number: self.number,
            call: self.call,
            area: self.area,
            small: [0; INLINE_REPLY],
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
        writer.put_small();
        let slot = self.slot;
        slot.status.store(status, Ordering::Relaxed);
        slot.reply_len.store(writer.len as u32, Ordering::Relaxed);
        slot.media_type_len
            .store(writer.media_type_len, Ordering::Relaxed);
        let done = state::of(self.call, state::DONE);
        slot.state.store(done, Ordering::SeqCst);
        // Either the caller sees the answer before it sleeps, or it is seen here.
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
    call: u32,
    area: Option<u32>,
    /// All of a reply that is no longer than this. It goes where the caller looks, which is not
    /// to be touched before the end.
    small: [u8; INLINE_REPLY],
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
        let memory = &self.server.memory;
        if let Some(rest) = self.small.get_mut(self.len..end) {
            rest.copy_from_slice(bytes);
        } else {
            if let Some(small) = self.small.get(..self.len) {
                memory.write(room.reply(), small);
            }
            memory.write(room.reply() + self.len, bytes);
        }
        self.len = end;
        abi::STATUS_OK
    }

    /// A copy of what was written so far.
    pub fn written(&self) -> Vec<u8> {
        if let Some(small) = self.small.get(..self.len) {
            return small.to_vec();
        }
        let room = self.server.memory.geometry.room(self.number, self.area);
        let mut bytes = Vec::new();
        self.server.memory.read(room.reply(), self.len, &mut bytes);
        bytes
    }

    /// Puts a small reply where the caller reads it.
    fn put_small(&self) {
        if let Some(small) = self.small.get(..self.len) {
            let memory = &self.server.memory;
            let begin = memory.geometry.reply(self.number, self.area, self.len);
            memory.write(begin, small);
        }
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
        let wants = state::of(self.call, state::WANTS_AREA);
        slot.server_sleeps.store(1, Ordering::SeqCst);
        slot.state.store(wants, Ordering::SeqCst);
        wake_caller(slot);
        let is_over = || {
            slot.cancelled.load(Ordering::SeqCst) != 0 || self.server.closed.load(Ordering::SeqCst)
        };
        while slot.state.load(Ordering::SeqCst) == wants && !is_over() {
            self.server.wait(&slot.state, wants);
        }
        slot.server_sleeps.store(0, Ordering::Relaxed);
        // Nonsense is as good as no area.
        let Ok(Some(area)) = self.server.area(slot) else {
            return;
        };
        let memory = &self.server.memory;
        let (small, large) = (
            memory.geometry.room(self.number, None),
            memory.geometry.room(self.number, Some(area)),
        );
        if self.len > self.small.len() {
            memory.copy(small.reply(), large.reply(), self.len);
        }
        self.area = Some(area);
    }
}
