//! Plugins in processes of their own.
//!
//! A [`Worker`] is one version of a plugin: a thread that starts its process, watches it and
//! replaces it when it dies, so that the life cycle knows one instance from its start to its
//! end. [`Workers`] is what all of them share: the worker program, the policy, and what of the
//! sandbox this system has.
//!
//! Invariants:
//!
//! * A process is started on the thread that watches it, because the kernel ends it with that
//!   thread; no process outlives the host.
//! * The process descriptor says whether a process is dead. Reports and closed pipes are hints.
//! * Every call ends: with a reply, or with an error that names what happened.
//! * More than a few crashes within some seconds end the restarts, until a new version comes or
//!   somebody asks.

mod calls;
mod error;
mod exchange;
#[cfg(test)]
mod fixtures;
mod held;
mod machine;
mod outgoing;
mod output;
mod owner;
mod probe;
mod process;
mod report;
mod restarts;
mod shared;
mod signs;
mod start;
mod usage;
mod watch;

pub use calls::Worker;
pub use error::{IsolationError, LaunchError, NoWorkers};
pub use owner::WorkerOwner;
pub use restarts::{Restarts, Verdict, too_often};
pub use shared::Workers;
