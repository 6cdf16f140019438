//! fanotify: what happens in directories, as the kernel reports it with the directory's handle and the
//! entry's name.
//!
//! `group` makes the system calls, which no safe library offers with names; `records` decodes what
//! the kernel writes, without unsafe code, from bytes that may be anything.
//!
//! Absent on purpose: permission events, which would let this process hold up every other one;
//! files opened by the kernel for each event; threads; what an event means.

mod group;
pub mod records;

pub use group::{Group, Handle};
