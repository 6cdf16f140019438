//! Where the log records of a host go.
//!
//! Absent on purpose: what happens. Records come from `tracing`; nothing here calls back.

#![forbid(unsafe_code)]

pub mod log;
