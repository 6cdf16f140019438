//! The control socket: JSON-RPC 2.0, one object per line.

mod connection;
mod hangups;
pub(crate) mod server;
