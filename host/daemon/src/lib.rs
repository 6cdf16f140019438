//! The hotmerge host: runs plugins and takes new versions of them while it runs.
//!
//! Embed it with [`Host::start`]; the program `hotmerge` is this library with signals, a
//! control socket and a command line around it, each a crate of its own.
//!
//! How a change travels: a hint (signal, request, watcher, clock) leads to a rescan
//! ([`scan`]); what changed becomes an attempt, which is verified, started and switched to
//! by the pure state machine's leave ([`lifecycle`]); the version it replaces is drained and
//! ended. Hints carry no information: losing one costs time, never correctness.
//!
//! State goes from one version to the next while calls wait at a gate (`supervise`), a canary
//! takes a share of the calls first (`plugin`), and what ran and was chosen is written down,
//! so that an operator can go back and a restart comes up as it was (`record`).
//!
//! Absent on purpose: unsafe code (loading is `hotmerge-loader`'s, the switch under running
//! calls is `hotmerge-swap`'s), an async runtime, and the build driver.

#![forbid(unsafe_code)]

pub mod config;
mod find;
#[cfg(test)]
mod fixtures;
mod host;
mod plugin;
mod record;
mod supervise;

pub use config::{CanaryConfig, Config, ConfigError, PluginConfig};
pub use find::{
    judge::{JudgeError, Judgement, judge},
    scan,
};
pub use host::{Host, StartError, UnknownPlugin};
pub use hotmerge_abi::CallContext;
pub use hotmerge_instance::{
    Call, Cancel, context,
    rules::{policies, text_file::TextFileError, wants},
};
pub use hotmerge_lifecycle as lifecycle;
pub use hotmerge_loader::{CallError as PluginError, Reply, give_back_large_blocks};
pub use plugin::{Answered, CallError, Plugin};
pub use record::{status, store::StoreError};
pub use supervise::keeping::WishError;

/// The target triple of this host.
pub const TARGET: &str = env!("HOTMERGE_TARGET");
