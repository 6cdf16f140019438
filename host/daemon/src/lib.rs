//! The hotmerge host: runs plugins and takes new versions of them while it runs.
//!
//! Embed it with [`Host::start`]; the program `hotmerge` is this library with signals, a
//! control socket and a command line around it.
//!
//! How a change travels: a hint (signal, request, watcher, clock) leads to a rescan
//! ([`scan`]); what changed becomes an attempt, which is verified, started and switched to
//! by the pure state machine's leave ([`lifecycle`]); the version it replaces is drained and
//! ended. Hints carry no information: losing one costs time, never correctness.
//!
//! State goes from one version to the next while calls wait at a gate (`attempt`), a canary
//! takes a share of the calls first (`canary`), and what ran and was chosen is written down,
//! so that an operator can go back and a restart comes up as it was (`store`, `keeping`).
//!
//! Absent on purpose: unsafe code (loading is `hotmerge-loader`'s, the switch under running
//! calls is `hotmerge-swap`'s), an async runtime, and the build driver.

#![forbid(unsafe_code)]

mod attempt;
mod canary;
mod cancel;
mod cell;
mod clock;
pub mod config;
pub mod control;
mod deadlines;
mod ending;
mod failure;
#[cfg(test)]
mod fixtures;
mod health;
mod history;
mod host;
mod hosted;
mod instance;
mod jobs;
mod keeping;
mod last_state;
pub mod log;
mod plugin;
pub mod policies;
mod report;
pub mod scan;
pub mod status;
mod store;
mod supervisor;
mod symbols;
mod text_file;
mod threads;
pub mod wants;
mod watch;

pub use cancel::Cancel;
pub use config::{CanaryConfig, Config, ConfigError, PluginConfig};
pub use host::{Host, StartError, UnknownPlugin};
pub use hotmerge_abi::CallContext;
pub use hotmerge_lifecycle as lifecycle;
pub use hotmerge_loader::Reply;
pub use keeping::WishError;
pub use plugin::{Answered, CallError, Plugin, context};
pub use store::StoreError;
pub use text_file::TextFileError;
