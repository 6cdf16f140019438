//! The HTTP front: plugins, status and administration for browsers, load balancers and programs
//! in any language.
//!
//! hyper reads and writes HTTP/1.1. A few threads serve all connections and run quick calls; others run on a
//! separate bounded pool, so that a slow plugin delays nobody else. `listen` opens sockets, `serve` accepts
//! connections, `routes` maps addresses to handlers, `calls` calls plugins, `quick` decides where a call
//! runs, `watchdog` notices quick calls that hang, `problem` defines every refusal (RFC 9457), `visitor` and `tokens` identify clients, `guard` rejects requests by web pages of
//! other sites, `framing` requests with two meanings; `descriptions` asks plugins to describe
//! themselves, and `operations` and `schema` turn that into parts of `openapi`; `page` is for people, and `live`
//! notifies it of changes.
//!
//! Invariant: `roles` decides who may do what, as for the control socket; a client without an entry in
//! `[[door.allow]]` reaches only the two health checks.
//!
//! Absent on purpose: TLS, HTTP/2 and compression, which a proxy in front does better.

mod calls;
mod connections;
mod descriptions;
mod extract;
mod framing;
mod guard;
mod listen;
#[cfg(feature = "page")]
mod live;
#[cfg(feature = "metrics")]
mod metrics;
mod openapi;
mod operations;
#[cfg(feature = "page")]
mod page;
mod pool;
mod problem;
mod quick;
mod receive;
mod routes;
mod schema;
mod serve;
mod share;
mod shared;
mod tokens;
mod visitor;
mod watchdog;

pub use listen::{Inherited, ListenError};
pub use serve::{Front, FrontError};
pub use tokens::TokensError;
