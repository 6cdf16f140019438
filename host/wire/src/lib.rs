//! Calls between a host and a plugin's worker, through shared memory.
//!
//! The host creates a memory file for each worker, sealed against shrinking and growing. It has
//! slots, each for one call in flight, and areas for large payloads. [`Caller`] is the calling side,
//! [`Server`] the called one. A worker whose plugin requires others gets a second file with the roles
//! reversed: there the host answers.
//!
//! Invariants:
//!
//! * No decision of the host depends on shared memory alone, whichever side it is. It keeps in private
//!   memory which slots and areas are in use, what it requested and how large a reply may be. It copies
//!   what the worker wrote before it checks it, and uses no unchecked index.
//! * A payload is copied once: the caller writes the request where the plugin reads it, and copies the
//!   reply from where the plugin wrote it.
//! * Both sides measure how soon the other answers, poll for about as long, and sleep otherwise. At
//!   rest nothing runs.
//! * No word that a worker can write keeps a thread of the host: the thread sleeps there for a limited
//!   time, or on a private word at the same time; it judges each value once; and a worker that causes
//!   too many needless wake-ups has broken the protocol.
//! * Every call ends: by its reply, its deadline, its cancellation or the worker's end.
//!
//! Absent on purpose: processes, descriptors other than the memory file, and logs.

use std::time::Duration;

mod alarms;
mod breach;
mod caller;
mod geometry;
mod memory;
mod parking;
mod pool;
mod request;
mod server;
mod shares;
mod slot;
mod spin;

pub use breach::Breach;
pub use caller::Caller;
pub use geometry::{Geometry, GeometryError};
pub use request::{Answer, Cancel, NoAnswer, Reply, Request, Requested};
pub use server::{Ended, Server, Taken, Writer};

/// The operations that a host requests from a worker.
pub mod op {
    /// A call of a method of the plugin.
    pub const CALL: u32 = 1;
    /// Start the plugin; the request is its configuration.
    pub const START: u32 = 2;
    /// Save the state; the reply is the state.
    pub const SAVE: u32 = 3;
    /// Restore a state; the method names the version that saved it.
    pub const RESTORE: u32 = 4;
    /// Tear the plugin down; the request is the time limit in nanoseconds, 8 bytes little-endian.
    pub const TEARDOWN: u32 = 5;
    /// End the process.
    pub const EXIT: u32 = 6;
    /// Load the plugin without running its code; the reply names the missing parts of the sandbox, one per
    /// line. It is the first request, and the last one to which only the worker program can reply.
    pub const LOAD: u32 = 8;
    /// As [`CALL`], with media types: the method is `METHOD`, a zero byte, the request's media type,
    /// a zero byte and the media types that the caller accepts.
    pub const CALL_MEDIA: u32 = 9;
    /// Describe the plugin; the reply is its description of itself.
    pub const DESCRIBE: u32 = 10;
    /// Run the plugin's constructors, after [`LOAD`] and before [`START`].
    pub const CONSTRUCT: u32 = 11;
    /// Let the plugin check itself, after [`START`].
    pub const SELF_CHECK: u32 = 12;
    /// Call another plugin: the only operation that a worker requests from its host. The method is
    /// `PLUGIN METHOD`, separated by the first space, followed by media types as in [`CALL_MEDIA`]
    /// if the caller gives any.
    pub const CALL_OTHER: u32 = 7;
}

/// Longest media type in a reply, in bytes.
pub const MEDIA_TYPE_LIMIT: usize = 255;

/// Longest name of a method, in bytes.
pub const METHOD_LIMIT: usize = 1024;

/// Longest name of a method together with the media types of its call, in bytes.
pub const HEAD_LIMIT: usize =
    METHOD_LIMIT + 2 + hotmerge_abi::CONTENT_TYPE_LIMIT + hotmerge_abi::ACCEPT_LIMIT;

/// The time on `CLOCK_MONOTONIC`, the clock of deadlines, in nanoseconds.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec.unsigned_abs()) * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The time `time` from now on the same clock, or the latest possible one.
pub fn after_ns(time: Duration) -> u64 {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    now_ns() + ns.min(u64::MAX / 2)
}

#[cfg(test)]
mod tests;
