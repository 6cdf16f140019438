//! The only place that loads a plugin into a process: verified bytes in, a callable
//! instance out.
//!
//! Invariants:
//!
//! * What is loaded is what was hashed: [`Verified`] can only be made from bytes whose
//!   digest is the expected one, and they are sealed before the loader maps them.
//! * A descriptor number is never used again while an object that was loaded through it
//!   may be mapped: the dynamic loader compares names, and would hand out the old code.
//! * Nothing unwinds across the border, in either direction.
//!
//! Absent on purpose: directories, watching, timing, and the question when to load or to
//! end anything. That is the daemon's.

mod advice;
mod call_error;
mod constructors;
mod heap;
mod instance;
mod library;
mod reply;
mod services;
mod verified;

pub use advice::advice;
pub use call_error::{CallError, reason_text};
pub use constructors::{Constructors, ConstructorsError};
pub use heap::give_back_large_blocks;
pub use instance::{Instance, Loaded, Remains};
pub use library::Unloaded;
pub use reply::Reply;
pub use services::{HostServices, LogRecord, OutgoingCall};
pub use verified::{LoadError, Verified};
