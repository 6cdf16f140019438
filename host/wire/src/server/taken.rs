//! A call that was taken, and its reply.

use std::sync::atomic::{AtomicBool, Ordering};

use hotmerge_abi::{self as abi, CallContext, Status};
use rustix::thread::futex::{self, Flags};

use super::{Ended, Server, occupy};
use crate::{
    Breach, HEAD_LIMIT, now_ns,
    pool::passed,
    slot::{INLINE_REPLY, Slot, state},
};

impl Server {
    /// Waits for the next call and takes it. Any thread may call this.
    ///
    /// # Errors
    /// Why there is none.
    pub fn next(&self) -> Result<Taken<'_>, Ended> {
        loop {
            if self.parking.is_closed() {
                return Err(Ended::HungUp);
            }
            match self.try_next() {
                Ok(None) if self.poll() => {}
                Ok(None) if self.may_sleep() => self.sleep(),
                Ok(None) => return Err(Breach::FalseAlarms.into()),
                Ok(Some(taken)) => {
                    self.alarms.as_ref().inspect(|alarms| alarms.justified());
                    return Ok(taken);
                }
                Err(breach) => return Err(breach.into()),
            }
        }
    }

    fn try_next(&self) -> Result<Option<Taken<'_>>, Breach> {
        for number in 0..self.used()? {
            if let Some(call) = self.claim(self.memory.slot(number)) {
                return self.take(number, call).map(Some);
            }
        }
        Ok(None)
    }

    /// Copies the fields of a call, and checks the copy.
    fn take(&self, number: u32, call: u32) -> Result<Taken<'_>, Breach> {
        let slot = self.memory.slot(number);
        if !occupy(&self.slots, number) {
            return Err(Breach::SlotInUse);
        }
        let area = self.area(slot)?;
        let method_len = slot.method_len.load(Ordering::Relaxed) as usize;
        let request_len = slot.request_len.load(Ordering::Relaxed) as usize;
        let room = self.memory.geometry.room(number, area).bytes;
        if method_len > HEAD_LIMIT || method_len.saturating_add(request_len) > room {
            return Err(Breach::LongRequest);
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
}

/// A call that was taken. It must be answered by [`Taken::finish`].
#[derive(Debug)]
pub struct Taken<'a> {
    server: &'a Server,
    slot: &'a Slot,
    number: u32,
    /// Its number among the calls of the slot.
    call: u32,
    op: u32,
    area: Option<u32>,
    method_len: usize,
    request_len: usize,
}

impl<'a> Taken<'a> {
    /// The number of its slot.
    pub fn slot(&self) -> u32 {
        self.number
    }

    /// The requested operation.
    pub fn op(&self) -> u32 {
        self.op
    }

    /// Whether the caller has stopped waiting for the answer.
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

    /// Method and request, without a copy.
    ///
    /// # Safety
    /// The other side must be trusted not to write to them until this call is answered.
    pub unsafe fn request(&self) -> (&'a [u8], &'a [u8]) {
        let len = self.method_len + self.request_len;
        // SAFETY: a trusted peer writes to a slot only before it posts and after it was answered;
        // this value exists in between, and the caller of this function vouches for the peer.
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
            gives_up_ns: 0,
            gives_up: None,
        }
    }

    /// Answers the call.
    pub fn finish(self, status: Status, writer: &Writer<'_>) {
        // Before the other side learns of the answer, because it may reuse both at once.
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
        // Either the caller sees the answer before it sleeps, or this sees that it sleeps.
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
    /// A reply that fits here is kept until the end, because the caller polls the line in which it will
    /// lie.
    small: [u8; INLINE_REPLY],
    len: usize,
    media_type_len: u32,
    limit: usize,
    /// Until when it waits for an area, on the monotonic clock; 0 for no limit.
    gives_up_ns: u64,
    /// Set from elsewhere if it must not wait any longer.
    gives_up: Option<&'a AtomicBool>,
}

/// How often a reply that waits for an area checks whether it is given up, in nanoseconds. No wake-up
/// announces that, because a worker could move the waiting thread to another word.
const NAP_NS: u64 = 50_000_000;

impl<'a> Writer<'a> {
    /// Waits for an area at most until `gives_up_ns` on the monotonic clock: the reply occupies memory
    /// while it waits, and a caller may never grant an area.
    #[must_use]
    pub fn giving_up_at(self, gives_up_ns: u64) -> Self {
        Self {
            gives_up_ns,
            ..self
        }
    }

    /// Also stops waiting for an area soon after this is set.
    #[must_use]
    pub fn giving_up_if(self, gives_up: &'a AtomicBool) -> Self {
        Self {
            gives_up: Some(gives_up),
            ..self
        }
    }

    fn is_given_up(&self) -> bool {
        let is_set = |it: &AtomicBool| it.load(Ordering::Relaxed);
        passed(self.gives_up_ns) || self.gives_up.is_some_and(is_set)
    }

    /// When to check again whether it is given up, if not for a wake-up.
    fn checks_at(&self) -> u64 {
        let next = self.gives_up.map(|_| now_ns().saturating_add(NAP_NS));
        match (next, self.gives_up_ns) {
            (Some(next), 0) => next,
            (Some(next), limit) => next.min(limit),
            (None, limit) => limit,
        }
    }

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

    /// A copy of the bytes written so far.
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

    /// Discards the bytes written so far.
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

    /// Requests an area, and moves the bytes written so far there.
    fn move_to_area(&mut self) {
        let slot = self.slot;
        let wants = state::of(self.call, state::WANTS_AREA);
        slot.server_sleeps.store(1, Ordering::SeqCst);
        slot.state.store(wants, Ordering::SeqCst);
        wake_caller(slot);
        let is_over = || {
            slot.cancelled.load(Ordering::SeqCst) != 0
                || self.server.parking.is_closed()
                || self.is_given_up()
        };
        // After too many needless wake-ups the reply gets no area; `Server::next` then reports why.
        while slot.state.load(Ordering::SeqCst) == wants && !is_over() && self.server.may_sleep() {
            self.server.wait(&slot.state, wants, self.checks_at());
        }
        slot.server_sleeps.store(0, Ordering::Relaxed);
        // An invalid area counts as none.
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
