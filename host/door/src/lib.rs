//! The control interface of a host: access and answers.
//!
//! [`Server`] is the control socket; `answer` implements the requests, independent of
//! the transport.
//!
//! Absent on purpose: what a request triggers. The host decides that.

#![forbid(unsafe_code)]

mod answer;
mod bounded;
mod socket;

pub use answer::AskToStop;
pub use socket::server::{OpenError, Server};
