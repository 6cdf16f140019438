//! What a host and the worker of a plugin say to each other: calls through shared memory.
//!
//! The host makes a memory file for a worker, sealed against shrinking and growing. It holds
//! a number of slots, each for one call in flight, and areas for payloads. [`Caller`] is
//! the side that asks, [`Server`] the one that answers. A worker whose plugin requires others
//! gets a second file, the other way round: there the host answers.
//!
//! Invariants:
//!
//! * Nothing the host decides depends on shared memory alone, on either side. Which slots and
//!   areas are in use, what was asked and how large a reply may be, it keeps in memory of its
//!   own; what it reads from the worker is copied first and checked then, and no index is used
//!   unchecked.
//! * A payload crosses with one copy: the request is written where the plugin reads it, and
//!   the reply is copied once from where the plugin wrote it.
//! * Nobody spins without a reason: both sides measure how soon the other answers, spin for
//!   about so long, and sleep otherwise. At rest nothing runs.
//! * No word that the other side can write keeps a thread of the host's: it sleeps there for a
//!   limited time or beside a word of its own, judges each value once, and wakes for nothing only
//!   so often before the other side has broken the rules.
//! * A call ends: by its reply, its deadline, its cancellation or the worker's end.
//!
//! Absent on purpose: processes, descriptors beyond the memory file, and logs.

use std::time::Duration;

mod alarms;
mod bed;
mod caller;
mod geometry;
mod memory;
mod pool;
mod request;
mod server;
mod shares;
mod slot;
mod spin;

pub use caller::Caller;
pub use geometry::{Geometry, GeometryError};
pub use request::{Answer, Cancel, NoAnswer, Reply, Request};
pub use server::{Ended, Server, Taken, Writer};

/// What a host asks of a worker.
pub mod op {
    /// A call of a method of the plugin.
    pub const CALL: u32 = 1;
    /// Run the plugin's constructors and start it; the request is its configuration.
    pub const START: u32 = 2;
    /// Write the state.
    pub const SAVE: u32 = 3;
    /// Take over a state: the method is the version it is from.
    pub const RESTORE: u32 = 4;
    /// End the plugin's work; the request is the limit in nanoseconds, 8 bytes little-endian.
    pub const TEARDOWN: u32 = 5;
    /// End the process.
    pub const EXIT: u32 = 6;
    /// Load the plugin and run nothing of it; the reply names, one per line, the parts of the sandbox that
    /// are missing. The first thing that is asked, and the last that the worker alone answers.
    pub const LOAD: u32 = 8;
    /// As [`CALL`], with media types: the method is `METHOD`, a zero byte, the request's media type,
    /// a zero byte and the accepted ones.
    pub const CALL_MEDIA: u32 = 9;
    /// Write what the plugin says of itself.
    pub const DESCRIBE: u32 = 10;
    /// The other way round, the only thing a worker asks of its host: a call of another plugin.
    /// The method is `PLUGIN METHOD`, with the first space between them, and behind it what
    /// [`CALL_MEDIA`] has there if the caller says anything.
    pub const CALL_OTHER: u32 = 7;
}

/// Longest media type in a reply, in bytes.
pub const MEDIA_TYPE_LIMIT: usize = 255;

/// Longest name of a method, in bytes.
pub const METHOD_LIMIT: usize = 1024;

/// Longest name of a method with the media types of a call behind it, in bytes.
pub const HEAD_LIMIT: usize =
    METHOD_LIMIT + 2 + hotmerge_abi::CONTENT_TYPE_LIMIT + hotmerge_abi::ACCEPT_LIMIT;

/// Now on `CLOCK_MONOTONIC`, in nanoseconds: the clock of deadlines.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec.unsigned_abs()) * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// A time from now, on the same clock. One that is too long for a number ends in centuries.
pub fn after_ns(time: Duration) -> u64 {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    now_ns() + ns.min(u64::MAX / 2)
}

#[cfg(test)]
mod tests;
