//! The HTTP front: plugins, status and administration for browsers, load balancers and programs
//! in any language.
//!
//! hyper reads and writes HTTP/1.1; a few threads of its own serve every connection, and calls run
//! on a bounded pool beside them, so that a slow plugin holds up nobody. `listen` opens sockets,
//! `serve` lets connections in, `routes` says what is where, `calls` calls plugins, `problem` is
//! every refusal (RFC 9457), `visitor` and `tokens` find out who
//! asks, `guard` keeps web pages of others out.
//!
//! Invariant: who may do what is decided by `roles`, as for the control socket; a client without
//! an entry in `[[door.allow]]` reaches nothing but the two health checks.
//!
//! Absent on purpose: TLS, HTTP/2 and compression, which a proxy in front does better.

mod calls;
mod connections;
mod extract;
mod guard;
mod listen;
#[cfg(feature = "metrics")]
mod metrics;
mod openapi;
mod problem;
mod routes;
mod serve;
mod share;
mod shared;
mod tokens;
mod visitor;

pub use listen::{Inherited, ListenError};
pub use serve::{Front, FrontError};
pub use tokens::TokensError;
