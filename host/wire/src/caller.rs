//! The side that asks and waits: the host's, which believes nothing, and that of a worker whose
//! plugin calls others.

use std::{
    hint::spin_loop,
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
    slot::{NO_AREA, Slot, WITHDRAWN, following, state},
    spin::Spin,
};

/// A sleeping caller looks up at least this often, in nanoseconds: a wake-up that a hostile
/// worker provoked or a race lost must not cost more.
const NAP_NS: u64 = 50_000_000;

/// Glances at a call before a thread of the other side is woken for it that sleeps although
/// another looks: a few microseconds.
const GLANCES: u32 = 128;

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
        self.set();
        caller.stir();
    }

    /// Ends the calls that carry this mark, for whoever does not know yet through which caller
    /// they go: one that waits already notices only when it looks up.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was cancelled.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What the host alone knows of a slot.
#[derive(Debug, Default)]
struct Private {
    /// The number of its newest call.
    newest: AtomicU32,
    /// What its state says until the called side has anything new to say.
    state: AtomicU32,
    /// The area it has, as the slot's own word says it.
    area: AtomicU32,
    /// If nobody waits for its reply: when the call ought to have ended, in nanoseconds. 0 if
    /// somebody does.
    abandoned_ns: AtomicU64,
}

/// The host's side of a shared memory.
#[derive(Debug)]
pub struct Caller {
    memory: Memory,
    slots: Pool,
    areas: Pool,
    private: Vec<Private>,
    /// How many slots have been used so far.
    used: AtomicU32,
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
        let Geometry {
            slots,
            areas,
            cores,
            ..
        } = memory.geometry;
        Self {
            slots: Pool::new(slots),
            areas: Pool::new(areas),
            private: (0..slots).map(|_| Private::default()).collect(),
            used: AtomicU32::new(0),
            abandoned: AtomicU32::new(0),
            gone: AtomicBool::new(false),
            spin: Spin::new(cores),
            memory,
        }
    }

    /// Asks, and waits for the answer. `reply` holds a reply or the reason of a refusal.
    ///
    /// # Errors
    /// Why there is no answer; `reply` is as it was then.
    pub fn call(&self, request: &Request<'_>, reply: &mut Reply) -> Result<Status, Failure> {
        let number = self.take_slot(request)?;
        let private = &self.private[number as usize];
        let mut call = Call {
            caller: self,
            slot: self.memory.slot(number),
            private,
            slot_number: number,
            number: following(private.newest.load(Ordering::Relaxed)),
            before: private.state.load(Ordering::Relaxed),
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
                    call.abandon(request);
                }
                Err(failure)
            }
        }
    }

    /// The worker is gone: every call ends now, and no other begins.
    pub fn hang_up(&self) {
        self.gone.store(true, Ordering::SeqCst);
        for number in 0..self.memory.geometry.slots {
            // The rest of the word says how far a call has come.
            let state = &self.memory.slot(number).state;
            state.fetch_or(state::GONE, Ordering::SeqCst);
        }
        self.stir();
    }

    /// Whether [`Caller::hang_up`] was called.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// When the first of the calls that nobody waits for any more ought to have ended, as a point
    /// on the monotonic clock in nanoseconds. It lies ahead if the call was cancelled before its
    /// deadline, and is [`u64::MAX`] if it had none.
    pub fn abandoned_due(&self) -> Option<u64> {
        self.reclaim();
        let times = self.private.iter();
        times
            .map(|private| private.abandoned_ns.load(Ordering::Relaxed))
            .filter(|due| *due != 0)
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
        let method_len = slot.method_len.load(Ordering::Relaxed) as usize;
        let request_len = slot.request_len.load(Ordering::Relaxed) as usize;
        let area = area(self.private[number as usize].area.load(Ordering::Relaxed));
        let len = method_len.saturating_add(request_len);
        let begin = self.memory.geometry.request(number, area, len);
        let mut name = Vec::new();
        self.memory.read(begin, method_len.min(64), &mut name);
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
    slot_number: u32,
    /// Which of its slot's calls it is.
    number: u32,
    /// What the slot's state says until there is news of this call.
    before: u32,
}

impl Call<'_> {
    fn post(&self, request: &Request<'_>) -> Result<(), Failure> {
        let geometry = &self.caller.memory.geometry;
        let method = request.method.as_bytes();
        if method.len() > METHOD_LIMIT {
            return Err(Failure::LongMethod(method.len()));
        }
        let bytes = method.len() + request.bytes.len();
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
        let memory = &self.caller.memory;
        let area = area(self.private.area.load(Ordering::Relaxed));
        let begin = geometry.request(self.slot_number, area, bytes);
        memory.write(begin, method);
        memory.write(begin + method.len(), request.bytes);
        let head = memory.head();
        if self.caller.used.load(Ordering::Relaxed) <= self.slot_number {
            let used = self.slot_number + 1;
            self.caller.used.fetch_max(used, Ordering::SeqCst);
            head.used.fetch_max(used, Ordering::SeqCst);
        }
        self.private.newest.store(self.number, Ordering::Relaxed);

        let slot = self.slot;
        slot.op.store(request.op, Ordering::Relaxed);
        slot.method_len
            .store(method.len() as u32, Ordering::Relaxed);
        slot.request_len
            .store(request.bytes.len() as u32, Ordering::Relaxed);
        slot.reply_limit.store(
            u32::try_from(request.reply_limit).unwrap_or(u32::MAX),
            Ordering::Relaxed,
        );
        slot.put_context(request.context);
        slot.posted.store(self.number, Ordering::SeqCst);
        // Either a thread of the other side sees the call before it sleeps, or it is seen here.
        if head.sleepers.load(Ordering::SeqCst) > 0 && !self.is_taken_soon() {
            head.bell.fetch_add(1, Ordering::SeqCst);
            let _ = futex::wake(&head.bell, Flags::empty(), 1);
        }
        Ok(())
    }

    /// Whether a thread that looks for calls took this one.
    fn is_taken_soon(&self) -> bool {
        if self.caller.memory.head().looks.load(Ordering::Relaxed) == 0 {
            return false;
        }
        for _ in 0..GLANCES {
            if self.has_news() {
                return true;
            }
            spin_loop();
        }
        self.is_claimed()
    }

    fn has_news(&self) -> bool {
        self.slot.state.load(Ordering::Acquire) != self.before
    }

    fn is_claimed(&self) -> bool {
        self.slot.claim.load(Ordering::SeqCst) == self.number
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
        self.slot.area.store(area + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until there is an answer.
    fn wait(&mut self, request: &Request<'_>) -> Result<(), Failure> {
        loop {
            if !self.caller.spin.look(|| self.has_news()) {
                self.sleep(request)?;
            }
            if self.caller.is_gone() {
                let begun = self.is_claimed();
                return Err(Failure::Gone { begun });
            }
            let now = self.slot.state.load(Ordering::Acquire);
            if now == state::of(self.number, state::DONE) {
                self.private.state.store(now, Ordering::Relaxed);
                return Ok(());
            } else if now == state::of(self.number, state::WANTS_AREA) {
                self.grant(request)?;
            } else if now != self.before {
                return Err(Failure::Broken("a state that no slot has"));
            }
        }
    }

    /// Sleeps until the state is another, or the call has ended.
    fn sleep(&self, request: &Request<'_>) -> Result<(), Failure> {
        let began = now_ns();
        self.slot.caller_sleeps.store(1, Ordering::SeqCst);
        let result = loop {
            if self.slot.state.load(Ordering::SeqCst) != self.before {
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
            let _ = futex::wait(&self.slot.state, Flags::empty(), self.before, Some(&nap));
        };
        self.slot.caller_sleeps.store(0, Ordering::Relaxed);
        self.caller.spin.slept(now_ns() - began);
        result
    }

    /// Gives the call an area for its reply; the worker learns if none is to be had.
    fn grant(&mut self, request: &Request<'_>) -> Result<(), Failure> {
        if self.private.area.load(Ordering::Relaxed) != NO_AREA {
            return Err(Failure::Broken("it wants a second area"));
        }
        if self.caller.memory.geometry.areas > 0 {
            self.take_area(request)?;
        }
        self.before = state::of(self.number, state::HEARD);
        let wants = state::of(self.number, state::WANTS_AREA);
        let end = self.slot.state.compare_exchange(
            wants,
            self.before,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        if self.caller.is_gone() {
            return Err(Failure::Gone { begun: true });
        }
        if end.is_err() {
            return Err(Failure::Broken("it wants an area no more"));
        }
        if self.slot.server_sleeps.load(Ordering::SeqCst) != 0 {
            let _ = futex::wake(&self.slot.state, Flags::empty(), 1);
        }
        Ok(())
    }

    /// Copies the answer, and checks the copy.
    fn take(&self, request: &Request<'_>, reply: &mut Reply) -> Result<Status, Failure> {
        let geometry = &self.caller.memory.geometry;
        let area = area(self.private.area.load(Ordering::Relaxed));
        let len = self.slot.reply_len.load(Ordering::Relaxed) as usize;
        if len > request.reply_limit || len > geometry.room(self.slot_number, area).bytes {
            return Err(Failure::Broken("a reply that is larger than its room"));
        }
        let media_type = self.slot.media_type();
        reply.media_type = media_type.ok_or(Failure::Broken("a media type that is too long"))?;
        let begin = geometry.reply(self.slot_number, area, len);
        self.caller.memory.read(begin, len, &mut reply.bytes);
        Ok(self.slot.status.load(Ordering::Relaxed))
    }

    /// Takes a call back that the worker has not taken yet. Returns whether that was so.
    fn withdraw(&self) -> bool {
        let Slot {
            claim,
            state,
            cancelled,
            ..
        } = self.slot;
        cancelled.store(1, Ordering::SeqCst);
        // A reply that waits for room gets none any more.
        let end = state.compare_exchange(
            state::of(self.number, state::WANTS_AREA),
            state::of(self.number, state::HEARD),
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        if end.is_ok() {
            let _ = futex::wake(state, Flags::empty(), 1);
        }
        let claimed = claim.load(Ordering::SeqCst);
        if claimed == self.number {
            return false;
        }
        let withdrawn = claim.compare_exchange(
            claimed,
            self.number | WITHDRAWN,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        if withdrawn.is_ok() {
            cancelled.store(0, Ordering::Relaxed);
        }
        withdrawn.is_ok()
    }

    /// Leaves the slot to the worker until it is done with it, for which it has as long as if
    /// somebody waited.
    fn abandon(&self, request: &Request<'_>) {
        let limits = [request.context.deadline_ns, request.give_up_ns];
        let due = limits.into_iter().filter(|limit| *limit != 0).min();
        self.private
            .abandoned_ns
            .store(due.unwrap_or(u64::MAX).max(now_ns()), Ordering::Relaxed);
        self.caller
            .abandoned
            .fetch_or(1 << self.slot_number, Ordering::SeqCst);
    }
}

/// How long to sleep at most before `deadline_ns`.
fn nap(deadline_ns: u64) -> u64 {
    match deadline_ns {
        0 => NAP_NS,
        deadline => deadline.saturating_sub(now_ns()).clamp(1, NAP_NS),
    }
}
