//! The only place that loads a plugin into a process: verified bytes in, a callable
//! instance out.
//!
//! Invariants:
//!
//! * Only hashed bytes are loaded: [`Verified`] can only be constructed from bytes with the
//!   expected digest, and they are sealed before the loader maps them.
//! * A descriptor number is never reused while an object loaded through it may be mapped: the
//!   dynamic loader compares names, and would return the old code.
//! * Nothing unwinds across the boundary, in either direction.
//!
//! Absent on purpose: directories, watching, timing, and the decision when to load or end an
//! instance. The daemon makes it.

mod advice;
mod call_error;
mod constructors;
mod heap;
mod instance;
mod library;
mod media;
mod reply;
mod services;
mod verified;

pub use advice::{advice, suspicions};
pub use call_error::{CallError, reason_text};
pub use constructors::{Constructors, ConstructorsError};
pub use heap::give_back_large_blocks;
pub use instance::{Constructed, Instance, Loaded, Remains};
pub use library::Unloaded;
pub use media::{Media, MediaError};
pub use reply::Reply;
pub use services::{HostServices, LogRecord, OutgoingCall};
pub use verified::{LoadError, Verified, try_memory};
