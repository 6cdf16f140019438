//! Plugins in processes of their own.
//!
//! A [`Cell`] is one version of a plugin: a thread that starts its worker, watches it and
//! replaces it when it dies, so that the life cycle knows one instance from its start to its
//! end. [`Cells`] is what all of them share: the worker program, the policy, and what of the
//! sandbox this system has.
//!
//! Invariants:
//!
//! * A worker is started on the thread that watches it, because the kernel ends it with that
//!   thread; no worker outlives the host.
//! * The process descriptor says whether a worker is dead. Reports and closed sockets are hints.
//! * Every call ends: with a reply, or with an error that names what happened.
//! * More than a few crashes within some seconds end the trying, until a new version comes or
//!   somebody asks.

mod calls;
mod cells;
mod failure;
mod others;
mod output;
mod probe;
mod process;
mod restarts;
mod watch;

pub(crate) use calls::{Cell, Owner};
pub(crate) use cells::Cells;
pub use cells::{Isolation, OnDegraded};
pub use restarts::RestartConfig;
pub(crate) use restarts::{Restarts, Verdict};
