//! What follows from a change: the state machine's steps are carried out here, on threads that
//! come back with the next event.
//!
//! [`supervisor`] holds the machine and knows none of the files beside it; they add to it what
//! each kind of step needs.

pub(crate) mod bring_up;
pub(crate) mod clock;
pub(crate) mod crashes;
pub(crate) mod deadlines;
pub(crate) mod ending;
pub(crate) mod jobs;
pub(crate) mod keeping;
pub(crate) mod services;
mod spans;
pub(crate) mod state;
pub(crate) mod supervisor;
pub(crate) mod threads;
