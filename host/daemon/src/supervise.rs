//! The reaction to changes: carries out the state machine's steps, on threads that report back
//! with the next event.
//!
//! [`supervisor`] holds the machine and uses none of the other files; they add the code for each kind of
//! step.

mod alarms;
pub(crate) mod bring_up;
pub(crate) mod clock;
pub(crate) mod crashes;
pub(crate) mod deadlines;
pub(crate) mod ending;
pub(crate) mod jobs;
pub(crate) mod overrides;
pub(crate) mod persist;
pub(crate) mod reconfigure;
pub(crate) mod services;
mod spans;
pub(crate) mod state;
pub(crate) mod supervisor;
pub(crate) mod threads;
