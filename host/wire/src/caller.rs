//! The side that asks and waits: the host's, which believes nothing, and that of a worker whose
//! plugin calls others.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use hotmerge_abi::{CallContext, Status};
use rustix::{
    fs::Timespec,
    thread::futex::{self, Flags},
};

use crate::{
    Geometry, METHOD_LIMIT,
    memory::Memory,
    now_ns,
    pool::{Pool, passed},
    slot::{LOOKING, NO_AREA, Slot, state},
    spin::Spin,
};

/// A sleeping caller looks up at least this often, in nanoseconds: a wake-up that a hostile
/// worker provoked or a race lost must not cost more.
const NAP_NS: u64 = 50_000_000;

/// What is asked of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Which operation; worker and host agree on the numbers.
    pub op: u32,
    /// Handed to the plugin. Its deadline ends the call.
    pub context: &'a CallContext,
    /// Name of a method, at most [`METHOD_LIMIT`] bytes; empty for other operations.
    pub method: &'a str,
    /// The request's bytes.
    pub bytes: &'a [u8],
    /// How large a reply may be, in bytes.
    pub reply_limit: usize,
    /// Point on the monotonic clock in nanoseconds at which the caller gives up, whatever the
    /// context says; 0 for none.
    pub give_up_ns: u64,
    /// Ends the call from elsewhere.
    pub cancel: Option<&'a Cancel>,
}

/// What came back, copied into memory of the caller's.
#[derive(Debug, Default)]
pub struct Reply {
    /// The reply's bytes, or the reason of a refusal. Appended to what is there.
    pub bytes: Vec<u8>,
    /// The media type, not yet judged; empty if none was set.
    pub media_type: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The deadline passed.
    #[error("the deadline of the call has passed")]
    Deadline,
    /// The call was cancelled.
    #[error("the call was cancelled")]
    Cancelled,
    /// The worker is gone. `begun` says whether it had taken the call.
    #[error("the worker has ended")]
    Gone {
        /// Whether the worker had taken the call, as far as can be known.
        begun: bool,
    },
    /// What the worker wrote makes no sense: it must be ended.
    #[error("the worker broke the protocol: {0}")]
    Broken(&'static str),
    /// The request has no room.
    #[error("the request has {bytes} bytes, a worker takes {room}")]
    TooLarge {
        /// Of method and request together.
        bytes: usize,
        /// Of an area.
        room: usize,
    },
    /// The name of the method is too long.
    #[error("the name of the method has {0} bytes, at most {METHOD_LIMIT} are taken")]
    LongMethod(usize),
}

/// Ends a call from another thread.
#[derive(Debug, Default)]
pub struct Cancel(AtomicBool);

impl Cancel {
    /// Ends the calls that carry this mark. Their callers return at once; what the plugin
    /// does goes on until its deadline.
    pub fn cancel(&self, caller: &Caller) {
        self.0.store(true, Ordering::SeqCst);
        caller.stir();
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What the host alone knows of a slot.
#[derive(Debug, Default)]
struct Private {
    /// The area it has, as the slot's own word says it.
    area: AtomicU32,
    /// Since when nobody waits for its reply, in nanoseconds; 0 if somebody does.
    abandoned_ns: AtomicU64,
}

/// The host's side of a shared memory.
#[derive(Debug)]
pub struct Caller {
    memory: Memory,
    slots: Pool,
    areas: Pool,
    private: Vec<Private>,
    abandoned: AtomicU32,
    gone: AtomicBool,
    spin: Spin,
}

impl Caller {
    /// Makes a shared memory. The descriptor is for the worker.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(geometry: Geometry) -> io::Result<(Self, OwnedFd)> {
        let (memory, file) = Memory::create(geometry)?;
        Ok((Self::over(memory), file))
    }

    /// Maps the memory that the other side made to be called through.
    ///
    /// # Errors
    /// What the system says, or that it is another memory.
    pub fn open(file: impl AsFd, geometry: Geometry) -> io::Result<Self> {
        Ok(Self::over(Memory::open(file, geometry)?))
    }

    fn over(memory: Memory) -> Self {
        let Geometry { slots, areas, .. } = memory.geometry;
        Self {
            slots: Pool::new(slots),
            areas: Pool::new(areas),
            private: (0..slots).map(|_| Private::default()).collect(),
            abandoned: AtomicU32::new(0),
            gone: AtomicBool::new(false),
            spin: Spin::new(),
            memory,
        }
    }

    /// Asks, and waits for the answer. `reply` holds a reply or the reason of a refusal.
    ///
    /// # Errors
    /// Why there is no answer; `reply` is as it was then.
    pub fn call(&self, request: &Request<'_>, reply: &mut Reply) -> Result<Status, Failure> {
        let number = self.take_slot(request)?;
        let call = Call {
            caller: self,
            slot: self.memory.slot(number),
            private: &self.private[number as usize],
            number,
        };
        let posted = call.post(request);
        let outcome = posted.and_then(|()| call.wait(request));
        match outcome {
            Ok(()) => {
                let status = call.take(request, reply);
                self.free(number);
                status
            }
            Err(failure) => {
                if posted.is_err() || call.withdraw() {
                    self.free(number);
                } else {
                    call.abandon();
                }
                Err(failure)
            }
        }
    }

    /// The worker is gone: every call ends now, and no other begins.
    pub fn hang_up(&self) {
        self.gone.store(true, Ordering::SeqCst);
        for number in 0..self.memory.geometry.slots {
            self.memory
                .slot(number)
                .state
                .store(state::GONE, Ordering::SeqCst);
        }
        self.stir();
    }

    /// Whether [`Caller::hang_up`] was called.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Since when the longest of the calls runs that nobody waits for any more, as a point on
    /// the monotonic clock in nanoseconds.
    pub fn abandoned_since(&self) -> Option<u64> {
        self.reclaim();
        let times = self.private.iter();
        times
            .map(|private| private.abandoned_ns.load(Ordering::Relaxed))
            .filter(|since| *since != 0)
            .min()
    }

    /// Log records that the worker had no room for, as it says itself.
    pub fn dropped_logs(&self) -> u64 {
        self.memory.head().dropped.load(Ordering::Relaxed)
    }

    /// Method and context of the call in a slot that the worker named, as far as the slot still
    /// tells: for reports only, nothing may depend on it.
    pub fn describe(&self, number: u32) -> Option<(String, CallContext)> {
        let number = (number < self.memory.geometry.slots).then_some(number)?;
        let slot = self.memory.slot(number);
        let len = (slot.method_len.load(Ordering::Relaxed) as usize).min(64);
        let area = area(self.private[number as usize].area.load(Ordering::Relaxed));
        let room = self.memory.geometry.room(number, area);
        let mut name = Vec::new();
        self.memory
            .read(room.request, len.min(room.bytes), &mut name);
        let name = String::from_utf8_lossy(&name)
            .chars()
            .filter(|sign| !sign.is_control())
            .collect();
        Some((name, slot.context()))
    }

    fn take_slot(&self, request: &Request<'_>) -> Result<u32, Failure> {
        let reason = std::cell::Cell::new(Failure::Deadline);
        let taken = self.slots.take(|| {
            self.reclaim();
            self.ended(request)
                .map(|failure| reason.set(failure))
                .is_none()
        });
        let number = taken.ok_or(reason.get())?;
        if self.is_gone() {
            self.slots.give(number);
            return Err(Failure::Gone { begun: false });
        }
        Ok(number)
    }

    /// Why a call should not be waited for any longer.
    fn ended(&self, request: &Request<'_>) -> Option<Failure> {
        if self.is_gone() {
            return Some(Failure::Gone { begun: false });
        }
        if request.cancel.is_some_and(Cancel::is_set) {
            return Some(Failure::Cancelled);
        }
        (passed(request.context.deadline_ns) || passed(request.give_up_ns))
            .then_some(Failure::Deadline)
    }

    /// Makes slots usable again whose abandoned calls have returned since.
    fn reclaim(&self) {
        let mut abandoned = self.abandoned.load(Ordering::SeqCst);
        while abandoned != 0 {
            let number = abandoned.trailing_zeros();
            let bit = 1 << number;
            abandoned &= !bit;
            let done = self.memory.slot(number).state.load(Ordering::SeqCst) == state::DONE;
            if done && self.abandoned.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
                self.private[number as usize]
                    .abandoned_ns
                    .store(0, Ordering::Relaxed);
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
            self.memory
                .clear(self.memory.geometry.room(number, Some(area)));
            self.areas.give(area);
        }
        if !self.is_gone() {
            self.memory
                .slot(number)
                .state
                .store(state::FREE, Ordering::Relaxed);
        }
        self.slots.give(number);
    }

    /// Wakes everybody who waits for anything.
    fn stir(&self) {
        for number in 0..self.memory.geometry.slots {
            let _ = futex::wake(
                &self.memory.slot(number).state,
                Flags::empty(),
                u32::MAX >> 1,
            );
        }
        self.slots.stir();
        self.areas.stir();
    }
}

fn area(word: u32) -> Option<u32> {
    word.checked_sub(1)
}

/// One call, from the taking of its slot on.
struct Call<'a> {
    caller: &'a Caller,
    slot: &'a Slot,
    private: &'a Private,
    number: u32,
}

impl Call<'_> {
    fn post(&self, request: &Request<'_>) -> Result<(), Failure> {
        let geometry = &self.caller.memory.geometry;
        if request.method.len() > METHOD_LIMIT {
            return Err(Failure::LongMethod(request.method.len()));
        }
        let bytes = request.method.len() + request.bytes.len();
        if bytes > geometry.small_bytes as usize {
            let room = if geometry.areas == 0 {
                geometry.small_bytes.into()
            } else {
                geometry.area_bytes
            };
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            if bytes > room {
                return Err(Failure::TooLarge { bytes, room });
            }
            self.take_area(request)?;
        }
        let word = self.private.area.load(Ordering::Relaxed);
        let room = geometry.room(self.number, area(word));
        let slot = self.slot;
        slot.area.store(word, Ordering::Relaxed);
        slot.op.store(request.op, Ordering::Relaxed);
        slot.cancelled.store(0, Ordering::Relaxed);
        slot.caller_sleeps.store(0, Ordering::Relaxed);
        slot.method_len
            .store(request.method.len() as u32, Ordering::Relaxed);
        slot.request_len
            .store(request.bytes.len() as u32, Ordering::Relaxed);
        slot.reply_limit.store(
            u32::try_from(request.reply_limit).unwrap_or(u32::MAX),
            Ordering::Relaxed,
        );
        slot.put_context(request.context);
        let memory = &self.caller.memory;
        memory.write(room.request, request.method.as_bytes());
        memory.write(room.request + request.method.len(), request.bytes);
        slot.state.store(state::POSTED, Ordering::Release);
        let head = memory.head();
        let ready = head.ready.fetch_or(1 << self.number, Ordering::SeqCst);
        if ready & LOOKING == 0 && head.sleepers.load(Ordering::SeqCst) > 0 {
            let _ = futex::wake(&head.ready, Flags::empty(), 1);
        }
        Ok(())
    }

    fn take_area(&self, request: &Request<'_>) -> Result<(), Failure> {
        let reason = std::cell::Cell::new(Failure::Deadline);
        let taken = self.caller.areas.take(|| {
            self.caller.reclaim();
            self.caller
                .ended(request)
                .map(|failure| reason.set(failure))
                .is_none()
        });
        let area = taken.ok_or(reason.get())?;
        self.private.area.store(area + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until there is an answer.
    fn wait(&self, request: &Request<'_>) -> Result<(), Failure> {
        let is_posted = || self.slot.state.load(Ordering::Acquire) == state::POSTED;
        loop {
            if !self.caller.spin.look(|| !is_posted()) {
                self.sleep(request)?;
            }
            if self.caller.is_gone() {
                let ready = &self.caller.memory.head().ready;
                let begun = ready.load(Ordering::SeqCst) & 1 << self.number == 0;
                return Err(Failure::Gone { begun });
            }
            match self.slot.state.load(Ordering::Acquire) {
                state::DONE => return Ok(()),
                state::POSTED => {}
                state::WANTS_AREA => self.grant(request)?,
                _ => return Err(Failure::Broken("a state that no slot has")),
            }
        }
    }

    /// Sleeps until the state is another, or the call has ended.
    fn sleep(&self, request: &Request<'_>) -> Result<(), Failure> {
        let began = now_ns();
        self.slot.caller_sleeps.store(1, Ordering::SeqCst);
        let result = loop {
            if self.slot.state.load(Ordering::SeqCst) != state::POSTED {
                break Ok(());
            }
            if let Some(failure) = self.caller.ended(request) {
                break match failure {
                    // The state says so too.
                    Failure::Gone { .. } => Ok(()),
                    other => Err(other),
                };
            }
            let nap = nap(request.context.deadline_ns).min(nap(request.give_up_ns));
            let nap = Timespec {
                tv_sec: 0,
                tv_nsec: nap as _,
            };
            let _ = futex::wait(&self.slot.state, Flags::empty(), state::POSTED, Some(&nap));
        };
        self.slot.caller_sleeps.store(0, Ordering::Relaxed);
        self.caller.spin.slept(now_ns() - began);
        result
    }

    /// Gives the call an area for its reply; the worker learns if none is to be had.
    fn grant(&self, request: &Request<'_>) -> Result<(), Failure> {
        if self.private.area.load(Ordering::Relaxed) != NO_AREA {
            return Err(Failure::Broken("it wants a second area"));
        }
        if self.caller.memory.geometry.areas > 0 {
            self.take_area(request)?;
        }
        let word = self.private.area.load(Ordering::Relaxed);
        self.slot.area.store(word, Ordering::Relaxed);
        self.slot.state.store(state::POSTED, Ordering::SeqCst);
        if self.caller.is_gone() {
            return Err(Failure::Gone { begun: true });
        }
        if self.slot.server_sleeps.load(Ordering::SeqCst) != 0 {
            let _ = futex::wake(&self.slot.state, Flags::empty(), 1);
        }
        Ok(())
    }

    /// Copies the answer, and checks the copy.
    fn take(&self, request: &Request<'_>, reply: &mut Reply) -> Result<Status, Failure> {
        let area = area(self.private.area.load(Ordering::Relaxed));
        let room = self.caller.memory.geometry.room(self.number, area);
        let len = self.slot.reply_len.load(Ordering::Relaxed);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > request.reply_limit || len > room.bytes {
            return Err(Failure::Broken("a reply that is larger than its room"));
        }
        let media_type = self.slot.media_type();
        reply.media_type = media_type.ok_or(Failure::Broken("a media type that is too long"))?;
        self.caller.memory.read(room.reply(), len, &mut reply.bytes);
        Ok(self.slot.status.load(Ordering::Relaxed))
    }

    /// Takes a call back that the worker has not taken yet. Returns whether that was so.
    fn withdraw(&self) -> bool {
        let bit = 1 << self.number;
        self.slot.cancelled.store(1, Ordering::SeqCst);
        // A reply that waits for room gets none any more.
        let wants = &self.slot.state;
        let end = wants.compare_exchange(
            state::WANTS_AREA,
            state::POSTED,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        if end.is_ok() {
            let _ = futex::wake(wants, Flags::empty(), 1);
        }
        let ready = &self.caller.memory.head().ready;
        ready.fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    /// Leaves the slot to the worker until it is done with it.
    fn abandon(&self) {
        self.private
            .abandoned_ns
            .store(now_ns().max(1), Ordering::Relaxed);
        self.caller
            .abandoned
            .fetch_or(1 << self.number, Ordering::SeqCst);
    }
}

/// How long to sleep at most before `deadline_ns`.
fn nap(deadline_ns: u64) -> u64 {
    match deadline_ns {
        0 => NAP_NS,
        deadline => deadline.saturating_sub(now_ns()).clamp(1, NAP_NS),
    }
}
