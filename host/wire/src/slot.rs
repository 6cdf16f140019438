//! What lies at the start of the shared memory, and one slot of it. Atomics only: the other
//! side may write anything at any time, and a plain read would be a data race.
//!
//! A line of the cache that one processor writes and another reads costs a call as much as its
//! way there: some 0.1 µs. So each line has one side that writes it, the caller's line says both
//! that there is a call and what it is, and a small request or reply lies beside the word that
//! announces it. A small call moves three lines: two neighbours there, which come together, and
//! one back.

use std::{
    mem::offset_of,
    sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

use hotmerge_abi::CallContext;

use crate::MEDIA_TYPE_LIMIT;

/// Calls are numbered, each slot's by themselves, so that a word tells which call it is about.
/// A number has this many bits and is never 0.
const NUMBER_BITS: u32 = 29;

/// The number of the call after this one.
pub(crate) fn following(number: u32) -> u32 {
    match (number + 1) & ((1 << NUMBER_BITS) - 1) {
        0 => 1,
        next => next,
    }
}

/// What [`Slot::state`] says of a call, below its number.
pub(crate) mod state {
    /// The called side has answered.
    pub(crate) const DONE: u32 = 1;
    /// The called side needs a larger area for the reply.
    pub(crate) const WANTS_AREA: u32 = 2;
    /// The caller has heard that, and may have given one.
    pub(crate) const HEARD: u32 = 3;
    /// The called side is gone. Beside any of the others.
    pub(crate) const GONE: u32 = 4;

    /// The word for a call.
    pub(crate) fn of(number: u32, state: u32) -> u32 {
        number << 3 | state
    }
}

/// In [`Slot::claim`], beside a call's number: its caller has taken it back.
pub(crate) const WITHDRAWN: u32 = 1 << 31;

/// The `area` of a slot that has none.
pub(crate) const NO_AREA: u32 = 0;

/// Longest request, method included, that lies beside the words that announce it, in bytes.
pub(crate) const INLINE_REQUEST: usize = 64;

/// Longest reply of that kind, in bytes.
pub(crate) const INLINE_REPLY: usize = 48;

/// What is not a slot's. Written seldom, so that both sides keep it at hand.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Head {
    /// How many slots have been used so far, by the caller: those beyond need no look.
    pub(crate) used: AtomicU32,
    /// Rung to wake a thread of the called side. The word that they sleep on.
    pub(crate) bell: AtomicU32,
    /// How many of the called side's threads sleep.
    pub(crate) sleepers: AtomicU32,
    /// Whether one of them looked for calls when it was last heard of. It may have taken one
    /// since: a caller that relies on it makes sure that its call is taken.
    pub(crate) looks: AtomicU32,
    line: [u32; 12],
    /// Log records that the worker had no room for.
    pub(crate) dropped: AtomicU64,
}

/// One call in flight.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Slot {
    /// A small request. Written first: the called side looks at the next line all the time, and
    /// takes it away from a caller that lingers over it.
    request: [AtomicU8; INLINE_REQUEST],

    /// Number of the newest call. Written last: the rest is complete when it changes.
    pub(crate) posted: AtomicU32,
    pub(crate) method_len: AtomicU32,
    pub(crate) request_len: AtomicU32,
    pub(crate) reply_limit: AtomicU32,
    /// All of a call's context but what is reserved.
    context: [AtomicU64; 5],
    pub(crate) op: AtomicU32,
    /// [`NO_AREA`], or the number of the area plus one.
    pub(crate) area: AtomicU32,

    /// A call's number and one of [`state`]; another call's until there is something to say. The
    /// word that both sides sleep on, and the caller looks at all the time: the called side
    /// writes to the rest of the line only right before it.
    pub(crate) state: AtomicU32,
    pub(crate) status: AtomicI32,
    pub(crate) reply_len: AtomicU32,
    pub(crate) media_type_len: AtomicU32,
    reply: [AtomicU8; INLINE_REPLY],

    media_type: [AtomicU8; MEDIA_TYPE_LIMIT],

    /// Number of the call that the called side took last, or that was [`WITHDRAWN`]. Whoever
    /// changes it to a call's number has decided which of the two. Far from what the caller
    /// looks at: processors fetch lines in pairs.
    pub(crate) claim: AtomicU32,
    pub(crate) server_sleeps: AtomicU32,
    /// Whether nobody waits for the reply any more.
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

    /// `false` if it is too long. Its length is told with the reply's.
    pub(crate) fn put_media_type(&self, text: &[u8]) -> bool {
        if text.len() > MEDIA_TYPE_LIMIT {
            return false;
        }
        for (to, from) in self.media_type.iter().zip(text) {
            to.store(*from, Ordering::Relaxed);
        }
        true
    }

    /// Copies the media type; `None` if its length cannot be.
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
