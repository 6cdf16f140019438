//! What lies at the start of the shared memory, and one slot of it. Atomics only: the other
//! side may write anything at any time, and a plain read would be a data race.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};

use hotmerge_abi::CallContext;

use crate::MEDIA_TYPE_LIMIT;

/// States of a slot.
pub(crate) mod state {
    /// Nobody uses it.
    pub(crate) const FREE: u32 = 0;
    /// The host asks.
    pub(crate) const POSTED: u32 = 1;
    /// The worker has answered.
    pub(crate) const DONE: u32 = 2;
    /// The worker needs a larger area for the reply.
    pub(crate) const WANTS_AREA: u32 = 3;
    /// The worker is gone.
    pub(crate) const GONE: u32 = 4;
}

/// The `area` of a slot that has none.
pub(crate) const NO_AREA: u32 = 0;

/// In [`Head::ready`]: a thread looks for calls without sleeping, and needs no waking.
pub(crate) const LOOKING: u32 = 1 << 31;

/// What is not a slot's.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Head {
    /// One bit a slot that waits to be taken, and [`LOOKING`]. The word that the called side's
    /// threads sleep on.
    ///
    /// One word for both, because each further one that two processors write costs a call as
    /// much as an answer.
    pub(crate) ready: AtomicU32,
    line: [u32; 15],
    /// How many of the called side's threads sleep.
    pub(crate) sleepers: AtomicU32,
    /// Log records that the worker had no room for.
    pub(crate) dropped: AtomicU64,
}

/// One call in flight.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Slot {
    /// One of [`state`]. The word that both sides sleep on.
    ///
    /// The caller looks at it all the time: the called side writes to the rest of the cache line
    /// only right before it.
    pub(crate) state: AtomicU32,
    pub(crate) caller_sleeps: AtomicU32,
    pub(crate) server_sleeps: AtomicU32,
    pub(crate) status: AtomicI32,
    pub(crate) reply_len: AtomicU64,
    pub(crate) media_type_len: AtomicU32,
    line: [u32; 9],
    /// Whether nobody waits for the reply any more.
    pub(crate) cancelled: AtomicU32,
    /// [`NO_AREA`], or the number of the area plus one.
    pub(crate) area: AtomicU32,
    pub(crate) op: AtomicU32,
    pub(crate) method_len: AtomicU32,
    pub(crate) request_len: AtomicU32,
    pub(crate) reply_limit: AtomicU32,
    /// All of a call's context but what is reserved, so that a request fits into one line.
    context: [AtomicU64; 5],
    media_type: [AtomicU8; MEDIA_TYPE_LIMIT],
}

const _: () = assert!(size_of::<CallContext>() == 56);
const _: () = assert!(std::mem::offset_of!(Slot, media_type) == 128);

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
