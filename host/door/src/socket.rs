//! The control socket: JSON-RPC 2.0, one object per line.

mod connection;
mod connections;
mod hangups;
pub(crate) mod server;
