//! One call: posted, awaited, and answered or withdrawn.

use std::{cell::Cell, hint::spin_loop, sync::atomic::Ordering};

use hotmerge_abi::{self as abi, Status};
use rustix::{
    fs::Timespec,
    thread::futex::{self, Flags},
};

use super::{Caller, Private, area};
use crate::{
    Answer, Breach, HEAD_LIMIT, METHOD_LIMIT, NoAnswer, Reply, Request, now_ns, op,
    slot::{NO_AREA, Slot, WITHDRAWN, following, state},
};

/// A sleeping caller checks at least this often, in nanoseconds, so that a wake-up lost to a race or
/// to a hostile worker delays it no longer.
const NAP_NS: u64 = 50_000_000;

/// How often a caller checks whether a polling thread took its call before it wakes a sleeping one:
/// a few microseconds.
const GLANCES: u32 = 128;

/// How many needless wake-ups one call tolerates, not counting those by its own side. An honest peer
/// causes one only by a late wake-up for an earlier call of the slot.
const FALSE_ALARMS: u32 = 1000;

impl Caller {
    /// Calls, waits for the answer and puts it into `buffer`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn ask(&self, request: &Request<'_>, buffer: Vec<u8>) -> Result<Answer, NoAnswer> {
        let mut reply = Reply {
            bytes: buffer,
            media_type: Vec::new(),
        };
        let status = self.call(request, &mut reply)?;
        let Reply { bytes, media_type } = reply;
        Ok(match status {
            abi::STATUS_OK => Answer::Reply { bytes, media_type },
            status => Answer::Refusal {
                status,
                reason: bytes,
            },
        })
    }

    /// Calls and waits for the answer. `reply` receives the reply or the reason for a refusal.
    ///
    /// # Errors
    /// Why there is no answer; `reply` is then unchanged.
    pub fn call(&self, request: &Request<'_>, reply: &mut Reply) -> Result<Status, NoAnswer> {
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
                if self.unanswered.load(Ordering::Relaxed) != 0 {
                    self.unanswered.store(0, Ordering::Relaxed);
                }
                status
            }
            Err(failure) => {
                if posted.is_err() {
                    self.free(number);
                } else if call.withdraw() {
                    if failure == NoAnswer::Deadline {
                        self.unanswered.fetch_add(1, Ordering::Relaxed);
                    }
                    self.free(number);
                } else {
                    call.abandon(request);
                }
                Err(failure)
            }
        }
    }
}

/// One call, from the moment it has a slot.
struct Call<'a> {
    caller: &'a Caller,
    slot: &'a Slot,
    private: &'a Private,
    slot_number: u32,
    /// Its number among the calls of its slot.
    number: u32,
    /// The value of the slot's state word until it concerns this call.
    before: u32,
}

impl Call<'_> {
    fn post(&self, request: &Request<'_>) -> Result<(), NoAnswer> {
        let geometry = &self.caller.memory.geometry;
        let method = request.method.as_bytes();
        let limit = match request.op {
            op::CALL_MEDIA | op::CALL_OTHER => HEAD_LIMIT,
            _ => METHOD_LIMIT,
        };
        if method.len() > limit {
            return Err(NoAnswer::LongMethod(method.len()));
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
                return Err(NoAnswer::TooLarge { bytes, room });
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
        self.private.op.store(request.op, Ordering::Relaxed);
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
        // Either a thread of the other side sees the call before it sleeps, or this sees that it sleeps.
        if head.sleepers.load(Ordering::SeqCst) > 0 && !self.is_taken_soon() {
            head.bell.fetch_add(1, Ordering::SeqCst);
            let _ = futex::wake(&head.bell, Flags::empty(), 1);
        }
        Ok(())
    }

    /// Whether a thread that was polling took this call.
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

    fn take_area(&self, request: &Request<'_>) -> Result<(), NoAnswer> {
        let reason = std::cell::Cell::new(NoAnswer::Deadline);
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

    /// Waits until there is an answer. It reads each value of the state once and judges that: reading
    /// again would loop forever if the worker kept changing it.
    fn wait(&mut self, request: &Request<'_>) -> Result<(), NoAnswer> {
        let seen = Cell::new(self.before);
        loop {
            let has_news = || {
                seen.set(self.slot.state.load(Ordering::Acquire));
                seen.get() != self.before
            };
            if !self.caller.spin.poll(has_news) {
                seen.set(self.sleep(request)?);
            }
            if self.caller.is_gone() {
                let begun = self.is_claimed();
                return Err(NoAnswer::Gone { begun });
            }
            let now = seen.get();
            if now == state::of(self.number, state::DONE) {
                self.private.state.store(now, Ordering::Relaxed);
                return Ok(());
            } else if now == state::of(self.number, state::WANTS_AREA) {
                self.grant(request)?;
            } else {
                return Err(Breach::UnknownState.into());
            }
        }
    }

    /// Sleeps until the state changes or the call has ended, and returns the state that it read.
    fn sleep(&self, request: &Request<'_>) -> Result<u32, NoAnswer> {
        let began = now_ns();
        self.slot.caller_sleeps.store(1, Ordering::SeqCst);
        let result = self.sleep_since(request, self.caller.wakes.load(Ordering::SeqCst));
        self.slot.caller_sleeps.store(0, Ordering::Relaxed);
        self.caller.spin.slept(now_ns() - began);
        result
    }

    fn sleep_since(&self, request: &Request<'_>, wakes: u32) -> Result<u32, NoAnswer> {
        let mut woken = 0_u32;
        loop {
            let now = self.slot.state.load(Ordering::SeqCst);
            if now != self.before {
                return Ok(now);
            }
            if let Some(failure) = self.caller.ended(request) {
                return match failure {
                    // The state shows that as well.
                    NoAnswer::Gone { .. } => Ok(now),
                    other => Err(other),
                };
            }
            let by_us = self.caller.wakes.load(Ordering::SeqCst).wrapping_sub(wakes);
            if woken.saturating_sub(by_us) > FALSE_ALARMS {
                return Err(Breach::FalseWakes.into());
            }
            let nap = nap(request.context.deadline_ns).min(nap(request.give_up_ns));
            let nap = Timespec {
                tv_sec: 0,
                tv_nsec: nap as _,
            };
            let slept = futex::wait(&self.slot.state, Flags::empty(), self.before, Some(&nap));
            woken += u32::from(slept.is_ok());
        }
    }

    /// Gives the call an area for its reply, or notifies the worker that none is free.
    fn grant(&mut self, request: &Request<'_>) -> Result<(), NoAnswer> {
        let has_heard = self.before == state::of(self.number, state::HEARD);
        if has_heard || self.private.area.load(Ordering::Relaxed) != NO_AREA {
            return Err(Breach::SecondArea.into());
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
            return Err(NoAnswer::Gone { begun: true });
        }
        if end.is_err() {
            return Err(Breach::AreaDeclined.into());
        }
        if self.slot.server_sleeps.load(Ordering::SeqCst) != 0 {
            let _ = futex::wake(&self.slot.state, Flags::empty(), 1);
        }
        Ok(())
    }

    /// Copies the answer, and checks the copy.
    fn take(&self, request: &Request<'_>, reply: &mut Reply) -> Result<Status, NoAnswer> {
        let geometry = &self.caller.memory.geometry;
        let area = area(self.private.area.load(Ordering::Relaxed));
        let len = self.slot.reply_len.load(Ordering::Relaxed) as usize;
        if len > request.reply_limit || len > geometry.room(self.slot_number, area).bytes {
            return Err(Breach::LongReply.into());
        }
        let media_type = self.slot.media_type();
        reply.media_type = media_type.ok_or(Breach::LongMediaType)?;
        let begin = geometry.reply(self.slot_number, area, len);
        self.caller.memory.read(begin, len, &mut reply.bytes);
        Ok(self.slot.status.load(Ordering::Relaxed))
    }

    /// Withdraws the call if the worker has not taken it yet; returns whether it did.
    fn withdraw(&self) -> bool {
        let Slot {
            claim,
            state,
            cancelled,
            ..
        } = self.slot;
        cancelled.store(1, Ordering::SeqCst);
        // A reply that still waits for room gets none.
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

    /// Leaves the slot to the worker until it has finished. It has as much time as if the caller still
    /// waited.
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

/// The longest sleep before `deadline_ns`.
fn nap(deadline_ns: u64) -> u64 {
    match deadline_ns {
        0 => NAP_NS,
        deadline => deadline.saturating_sub(now_ns()).clamp(1, NAP_NS),
    }
}
