//! The destinations of a host's log records.
//!
//! Absent on purpose: the events themselves. Records come from `tracing`; nothing here calls back.

#![forbid(unsafe_code)]

pub mod log;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod records;
