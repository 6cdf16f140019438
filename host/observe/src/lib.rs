//! The destinations of a host's log records.
//!
//! Absent on purpose: the events themselves. Records come from `tracing`; nothing here calls back.

#![forbid(unsafe_code)]

mod capture;
pub mod log;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod record;
pub mod records;
pub mod routes;
pub mod sinks;
