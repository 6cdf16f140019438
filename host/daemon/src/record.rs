//! Records: events, history, status, log, and the store of the last good versions.

pub(crate) mod debug;
pub(crate) mod events;
pub(crate) mod history;
pub(crate) mod log;
pub(crate) mod measured;
pub(crate) mod report;
pub(crate) mod spread;
pub mod status;
pub(crate) mod store;
pub(crate) mod subscribers;
pub(crate) mod words;
