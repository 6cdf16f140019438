//! The head of the shared memory, and one slot of it. Atomics only: the other side may write anything
//! at any time, and a plain read would be a data race.
//!
//! Moving a cache line from one processor to another costs a call about 0.1 µs. Each line is therefore
//! written by one side only, the caller's line both announces and describes a call, and a small request
//! or reply lies beside the word that announces it. A small call moves three lines: two adjacent ones
//! there, which processors fetch together, and one back.

use std::{
    mem::offset_of,
    sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

use hotmerge_abi::CallContext;

use crate::MEDIA_TYPE_LIMIT;

/// The calls of each slot are numbered, so that a word shows which call it concerns. A number has this
/// many bits and is never 0.
const NUMBER_BITS: u32 = 29;

/// The number of the call after this one.
pub(crate) fn following(number: u32) -> u32 {
    match (number + 1) & ((1 << NUMBER_BITS) - 1) {
        0 => 1,
        next => next,
    }
}

/// The states of a call in [`Slot::state`], stored below its number.
pub(crate) mod state {
    /// The called side has answered.
    pub(crate) const DONE: u32 = 1;
    /// The called side needs a larger area for the reply.
    pub(crate) const WANTS_AREA: u32 = 2;
    /// The caller has seen that request, and may have granted an area.
    pub(crate) const HEARD: u32 = 3;
    /// The called side is gone. Combined with any of the others.
    pub(crate) const GONE: u32 = 4;

    /// The state word of a call.
    pub(crate) fn of(number: u32, state: u32) -> u32 {
        number << 3 | state
    }
}

/// In [`Slot::claim`], beside a call's number: its caller has withdrawn it.
pub(crate) const WITHDRAWN: u32 = 1 << 31;

/// The `area` of a slot that has none.
pub(crate) const NO_AREA: u32 = 0;

/// Longest request, method included, that lies beside the words that announce it, in bytes.
pub(crate) const INLINE_REQUEST: usize = 64;

/// Longest reply of that kind, in bytes.
pub(crate) const INLINE_REPLY: usize = 48;

/// What belongs to no slot. Rarely written, so that both sides keep it in their caches.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Head {
    /// How many slots the caller has used so far; the called side need not check the others.
    pub(crate) used: AtomicU32,
    /// The word on which threads of the called side sleep; the caller rings it to wake one.
    pub(crate) bell: AtomicU32,
    /// How many of the called side's threads sleep.
    pub(crate) sleepers: AtomicU32,
    /// Whether one of them was polling recently. It may have taken a call since, so a caller that
    /// relies on it checks that its call is taken.
    pub(crate) looks: AtomicU32,
    line: [u32; 12],
    /// Log records that the worker had no room for.
    pub(crate) dropped: AtomicU64,
}

/// One call in flight.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Slot {
    /// A small request. Written first: the called side polls the next line, and would take it from a
    /// caller that keeps writing to it.
    request: [AtomicU8; INLINE_REQUEST],

    /// Number of the newest call. Written last: the rest is complete when it changes.
    pub(crate) posted: AtomicU32,
    pub(crate) method_len: AtomicU32,
    pub(crate) request_len: AtomicU32,
    pub(crate) reply_limit: AtomicU32,
    /// A call's context without its reserved fields.
    context: [AtomicU64; 5],
    pub(crate) op: AtomicU32,
    /// [`NO_AREA`], or the number of the area plus one.
    pub(crate) area: AtomicU32,

    /// A call's number and one of [`state`]; an earlier call's until this one progresses. Both sides
    /// sleep on this word, and the caller polls it: the called side writes to the rest of the line only
    /// right before it.
    pub(crate) state: AtomicU32,
    pub(crate) status: AtomicI32,
    pub(crate) reply_len: AtomicU32,
    pub(crate) media_type_len: AtomicU32,
    reply: [AtomicU8; INLINE_REPLY],

    media_type: [AtomicU8; MEDIA_TYPE_LIMIT],

    /// Number of the call that was last taken, or [`WITHDRAWN`]. The first side to change it to a call's
    /// number decides which. Kept apart from the line that the caller polls, because processors fetch
    /// lines in pairs.
    pub(crate) claim: AtomicU32,
    pub(crate) server_sleeps: AtomicU32,
    /// Whether the caller has stopped waiting for the reply.
    pub(crate) cancelled: AtomicU32,
    pub(crate) caller_sleeps: AtomicU32,
}

/// Where a small request lies in a slot.
pub(crate) const REQUEST_OFFSET: usize = offset_of!(Slot, request);
/// Where a small reply lies in a slot.
pub(crate) const REPLY_OFFSET: usize = offset_of!(Slot, reply);

const _: () = assert!(size_of::<CallContext>() == 56);
const _: () = assert!(offset_of!(Slot, posted) == 64);
const _: () = assert!(offset_of!(Slot, state) == 128);
const _: () = assert!(offset_of!(Slot, claim) == 448);

impl Slot {
    pub(crate) fn put_context(&self, context: &CallContext) {
        let flags = u64::from(context.size) | u64::from(context.trace_flags) << 32;
        let (high, low) = context.trace_id.split_at(8);
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
        let words = [
            flags,
            context.deadline_ns,
            word(high),
            word(low),
            word(&context.span_id),
        ];
        for (to, from) in self.context.iter().zip(words) {
            to.store(from, Ordering::Relaxed);
        }
    }

    pub(crate) fn context(&self) -> CallContext {
        let word = |index: usize| self.context[index].load(Ordering::Relaxed);
        let mut context = CallContext {
            size: word(0) as u32,
            trace_flags: (word(0) >> 32) as u32,
            deadline_ns: word(1),
            span_id: word(4).to_ne_bytes(),
            ..CallContext::default()
        };
        context.trace_id[..8].copy_from_slice(&word(2).to_ne_bytes());
        context.trace_id[8..].copy_from_slice(&word(3).to_ne_bytes());
        context
    }

    /// Stores a media type; `false` if it is too long. Its length is stored with the reply's.
    pub(crate) fn put_media_type(&self, text: &[u8]) -> bool {
        if text.len() > MEDIA_TYPE_LIMIT {
            return false;
        }
        for (to, from) in self.media_type.iter().zip(text) {
            to.store(*from, Ordering::Relaxed);
        }
        true
    }

    /// Copies the media type; `None` if its length is invalid.
    pub(crate) fn media_type(&self) -> Option<Vec<u8>> {
        let len = self.media_type_len.load(Ordering::Relaxed) as usize;
        let bytes = self.media_type.get(..len)?;
        Some(
            bytes
                .iter()
                .map(|byte| byte.load(Ordering::Relaxed))
                .collect(),
        )
    }
}
