//! The control socket: JSON-RPC 2.0, one object per line.

mod connection;
mod connections;
mod hangups;
mod reach;
pub(crate) mod server;

use std::time::Duration;

/// A connection on which nothing is asked for this long is closed, and so is one whose request takes
/// this long to come.
const IDLE: Duration = Duration::from_secs(60);
