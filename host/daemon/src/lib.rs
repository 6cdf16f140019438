//! The hotmerge host: runs plugins and reloads them without a restart.
//!
//! Embed it with [`Host::start`]; the program `hotmerge` is this library with signals, a
//! control socket and a command line around it, each in its own crate.
//!
//! # Where plugins run
//!
//! The program that embeds a host says where plugins run ([`Config::isolation`]); there is no
//! default, because one of the answers is its own process. In processes of their own they need the
//! program `hotmerge-worker`, from the package of that name (`cargo install hotmerge-worker`, or a
//! build of it in the same target directory). [`Config::worker`] names it; otherwise it is searched for
//! beside the program that runs the host, in `../libexec/hotmerge` from there, and in
//! `/usr/libexec/hotmerge`. Without it, plugins that are to run in a process are refused, and their
//! status says where it was searched for; [`Host::worker_program`] says that before a start.
//!
//! # How a change travels
//!
//! A hint (signal, request, watcher, clock) leads to a scan of the directory
//! ([`scan`]); each change becomes an attempt, which is verified, started and switched to as the
//! pure state machine decides ([`lifecycle`]); the replaced version is drained and retired.
//! Hints carry no information: losing one costs time, never correctness.
//!
//! A hand-over moves state between versions while calls wait at a gate (`supervise`), a canary
//! first takes a share of the calls (`plugin`), and the host persists versions and choices for
//! rollbacks and restarts (`record`).
//!
//! Absent on purpose: unsafe code (`hotmerge-loader` loads, `hotmerge-swap` switches under
//! running calls), an async runtime, and the build driver.

#![forbid(unsafe_code)]

pub mod config;
mod examine;
mod find;
mod host;
mod plugin;
mod record;
mod supervise;

pub use config::{CanaryConfig, Config, ConfigError, PluginConfig};
pub use examine::{Finding, Verdict, examine};
pub use find::{
    choice::Watch,
    errors::DirError,
    judge::{JudgeError, Judgement, judge},
    scan,
};
pub use host::{Host, StartError, UnknownPlugin};
pub use hotmerge_abi::CallContext;
pub use hotmerge_instance::{
    Call, Cancel, NoWorkers, context,
    rules::{policies, text_file::TextFileError, wants},
};
pub use hotmerge_lifecycle as lifecycle;
pub use hotmerge_loader::{
    CallError as PluginError, Media, MediaError, Reply, give_back_large_blocks,
};
pub use plugin::{Answered, CallError, Plugin};
pub use record::{
    status,
    store::StoreError,
    subscribers::{Event, EventKind, Subscription},
};
pub use supervise::overrides::OverrideError;

/// The target triple of this host.
pub const TARGET: &str = env!("HOTMERGE_TARGET");
