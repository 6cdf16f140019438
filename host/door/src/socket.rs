//! The control socket: JSON-RPC 2.0, one object per line.

mod connection;
mod connections;
mod hangups;
mod reach;
pub(crate) mod server;
mod shares;

use std::time::Duration;

/// A connection without a request for this long is closed, and so is one on which a request takes this
/// long to arrive.
const IDLE: Duration = Duration::from_secs(60);
