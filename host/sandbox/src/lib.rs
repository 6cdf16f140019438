//! The sandbox of a worker process.
//!
//! The host's half ([`spawn`], [`Policy`]) starts the worker program in its own namespaces and
//! compiles the filters; the worker's half ([`enter`], [`lock`]) confines the process before the
//! plugin's first instruction runs, and the host checks that it did ([`check_filters`]).
//!
//! The order counts, and is kept in one place each: namespaces and id maps before the
//! program starts; then session, private root, limits, user, capabilities, Landlock, the first
//! filter; then the plugin is loaded, without running anything of it; then the second filter; then its
//! constructors.
//!
//! Invariants:
//!
//! * Whatever the kernel refuses is reported: a part is either in place or in the list of missing
//!   parts, and the operator's policy decides whether the rest is enough.
//! * The policy is data (`policy/syscalls.toml`) with a reason beside each entry.
//!
//! Absent on purpose: calls, and the consequences of a crash.

mod cgroup;
mod enter;
mod filter;
mod grants;
mod image;
mod limits;
pub mod message;
mod notice;
mod peer;
mod plan;
mod policy;
mod reap;
mod root;
mod signals;
mod spawn;
mod usage;
mod verify;

pub use cgroup::{Cgroup, Cgroups};
pub use enter::{Entered, enter, lock, probe};
pub use filter::FilterError;
pub use notice::{no_signal_on_message, signal_on_message};
pub use peer::peer_groups;
pub use plan::{Grant, GrantError, Judged, Limits, Plan, Program};
pub use policy::{Policy, PolicyError};
pub use reap::{Ended, reap};
pub use signals::{hold_signals, reset_signals};
pub use spawn::{Ids, Namespaces, SpawnError, Spawned, spawn};
pub use usage::{CpuTimer, private_bytes};
pub use verify::{Unfiltered, check_filters};

/// Where the plugin lies in its private root.
pub const PLUGIN_PATH: &str = "/plugin.so";

/// Descriptors that the worker finds when it starts.
pub mod descriptor {
    /// The [`Plan`](crate::Plan), as JSON in a memory file.
    pub const PLAN: i32 = 3;
    /// The shared memory for calls.
    pub const WIRE: i32 = 4;
    /// The plugin's sealed image.
    pub const IMAGE: i32 = 5;
    /// Log records, each a [`message`](crate::message).
    pub const LOG: i32 = 6;
    /// Crash reports, each a [`message`](crate::message).
    pub const CRASH: i32 = 7;
    /// The shared memory for calls of other plugins; `/dev/null` if the plugin requires none.
    pub const OUTGOING: i32 = 8;
    /// How many there are.
    pub const COUNT: usize = 9;
    /// Those that stay the worker's once the plugin runs, with its input and output. The other numbers are
    /// given back by then, and become those of what the plugin opens.
    pub(crate) const KEPT: [u64; 6] = [0, 1, 2, IMAGE as u64, LOG as u64, CRASH as u64];
}
