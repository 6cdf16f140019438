//! Who is let in to a host, and how they are answered.
//!
//! [`Server`] is the control socket; what its requests do stands in `answer`, which knows no
//! transport.
//!
//! Absent on purpose: what a request sets off. The host decides that.

#![forbid(unsafe_code)]

mod answer;
mod bounded;
mod socket;

pub use answer::AskToStop;
pub use socket::server::{OpenError, Server};
