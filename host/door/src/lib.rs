//! The control interface of a host: access and answers.
//!
//! [`Server`] is the control socket, `http` the HTTP front. `answer` implements the requests and `roles`
//! decides who may make them; both are independent of the transport.
//!
//! Absent on purpose: what a request triggers. The host decides that.

#![forbid(unsafe_code)]

mod answer;
mod audit;
mod bounded;
mod description;
#[cfg(feature = "http")]
pub mod http;
mod roles;
mod socket;
mod tally;

pub use answer::{AskToStop, Door};
pub use socket::server::{OpenError, Server};
