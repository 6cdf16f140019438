//! The HTTP front as part of a host, in programs that have one.

use std::sync::Arc;

use hotmerge_daemon::config::HttpConfig;
use hotmerge_door::Door;

use crate::exit::{self, CommandError};

#[cfg(feature = "http")]
mod built {
    pub(in crate::commands) use hotmerge_door::http::{Front, Inherited};
}

#[cfg(not(feature = "http"))]
mod built {
    #[derive(Debug)]
    pub(in crate::commands) struct Inherited;
    #[derive(Debug)]
    pub(in crate::commands) enum Front {}
}

pub(super) use built::{Front, Inherited};

/// The sockets that a service manager passed.
#[cfg(feature = "http")]
pub(super) fn inherited() -> Result<Inherited, CommandError> {
    Inherited::take().map_err(|error| CommandError::new(exit::CONFIG, error))
}

/// As in a program with an HTTP front.
#[cfg(not(feature = "http"))]
pub(super) fn inherited() -> Result<Inherited, CommandError> {
    Ok(Inherited)
}

/// Tells the front that every plugin was scanned once.
#[cfg(feature = "http")]
pub(super) fn ready(front: Option<&Front>) {
    if let Some(front) = front {
        front.ready();
    }
}

/// As in a program with an HTTP front.
#[cfg(not(feature = "http"))]
pub(super) fn ready(_: Option<&Front>) {}

/// Opens the front, if the configuration has one.
#[cfg(feature = "http")]
pub(super) fn open(
    config: &HttpConfig,
    inherited: Inherited,
    door: Arc<Door>,
) -> Result<Option<Front>, CommandError> {
    if !config.is_on() {
        return Ok(None);
    }
    let front = Front::open(config, inherited, door)
        .map_err(|error| CommandError::new(exit::CONFIG, error))?;
    for place in front.places() {
        tracing::info!(target: "hotmerge::door", place, "the HTTP front listens");
    }
    Ok(Some(front))
}

/// As in a program with an HTTP front, if the configuration has none.
#[cfg(not(feature = "http"))]
pub(super) fn open(
    config: &HttpConfig,
    _: Inherited,
    _: Arc<Door>,
) -> Result<Option<Front>, CommandError> {
    if config.is_on() {
        let reason = "`http.listen` is set, but this program was built without its HTTP front \
                      (feature `http`)";
        return Err(CommandError::new(exit::CONFIG, anyhow::anyhow!(reason)));
    }
    Ok(None)
}

/// Answers what is under way, and ends.
#[cfg(feature = "http")]
pub(super) fn close(front: Option<&Front>) {
    let left = front.map_or(0, Front::close);
    if left > 0 {
        tracing::warn!(target: "hotmerge::door", "{left} HTTP connections were cut off");
    }
}

/// As in a program with an HTTP front.
#[cfg(not(feature = "http"))]
pub(super) fn close(_: Option<&Front>) {}
