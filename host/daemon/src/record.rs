//! What happened, for those who ask: history, status, and the versions that were kept.

pub(crate) mod debug;
pub(crate) mod events;
pub(crate) mod history;
pub(crate) mod log;
pub(crate) mod report;
pub mod status;
pub(crate) mod store;
pub(crate) mod words;
