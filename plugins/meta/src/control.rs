//! What driver, command line and host say to each other on the control socket.
//!
//! JSON-RPC 2.0, one object a line ([`frame`](crate::frame)), on a Unix stream socket. The
//! host answers each request once; answers may come in another order than the requests.
//!
//! Absent on purpose: a server (the host's own loop is one), batches, notifications.

mod client;
mod debug;
mod message;
mod status;

pub use client::{Client, ClientError, ConnectError};
pub use debug::{
    DebugAttempt, DebugChoice, DebugHealth, DebugRefused, DebugReport, DebugVersion, DebugWorker,
};
pub use jsonrpsee_types::{ErrorObjectOwned, Id, Request, Response, ResponsePayload};
pub use message::{
    Action, Base64, CallParams, CallReply, HistoryParams, PluginParams, PluginReport, Problem,
    ReloadParams, ReloadReport, RollbackParams, TraceParent, TraceParentError, Transition,
};
pub use status::{
    CanaryStatus, EndingStatus, FailureStatus, HostStatus, KeptStatus, PluginStatus, RefusedStatus,
    SavedStatus, Stage, State, Status, StoreFailure, WorkerStatus, sentence,
};

pub use crate::frame::MAX_FRAME_BYTES;

/// Methods that a host answers.
pub mod method {
    /// What runs. No parameters; the reply is the host's status object.
    pub const STATUS: &str = "status";
    /// Rescan and wait. [`ReloadParams`](super::ReloadParams) to
    /// [`ReloadReport`](super::ReloadReport).
    pub const RELOAD: &str = "reload";
    /// Where the host's history ends. No parameters; the reply is a number for
    /// [`ReloadParams::since`](super::ReloadParams::since).
    pub const POSITION: &str = "position";
    /// Call a plugin. [`CallParams`](super::CallParams) to [`CallReply`](super::CallReply).
    pub const CALL: &str = "call";
    /// Back to a version before. [`RollbackParams`](super::RollbackParams) to
    /// [`PluginReport`](super::PluginReport).
    pub const ROLLBACK: &str = "rollback";
    /// Keep what runs, whatever the directory says. [`PluginParams`](super::PluginParams) to
    /// [`PluginReport`](super::PluginReport).
    pub const PIN: &str = "pin";
    /// Let the directory decide again. As [`PIN`].
    pub const UNPIN: &str = "unpin";
    /// What happened. [`HistoryParams`](super::HistoryParams) to a list of
    /// [`Transition`](super::Transition)s, oldest first; [`NOT_POSSIBLE`](super::code::NOT_POSSIBLE)
    /// of a plugin of which nothing is known.
    pub const HISTORY: &str = "history";
    /// What the host knows of one plugin, for whoever looks for a fault.
    /// [`PluginParams`](super::PluginParams) to [`DebugReport`](super::DebugReport);
    /// [`NOT_POSSIBLE`](super::code::NOT_POSSIBLE) of a plugin of which nothing is known.
    pub const DEBUG: &str = "debug";
    /// End the host gracefully. No parameters; the reply is `null`.
    pub const STOP: &str = "stop";
}

/// Error codes of replies. Those below -32600 are JSON-RPC's own, the others hotmerge's.
pub mod code {
    /// The frame is not JSON.
    pub const PARSE: i32 = -32700;
    /// The frame is not a request.
    pub const INVALID_REQUEST: i32 = -32600;
    /// The host has no method of the name.
    pub const NO_METHOD: i32 = -32601;
    /// The parameters are not what the method expects.
    pub const INVALID_PARAMS: i32 = -32602;
    /// The host itself failed.
    pub const INTERNAL: i32 = -32603;
    /// No plugin of the name is active.
    pub const NO_PLUGIN: i32 = 1;
    /// The plugin has no method of the name.
    pub const NO_PLUGIN_METHOD: i32 = 2;
    /// The plugin refused the call; the message is its reason.
    pub const PLUGIN_FAILED: i32 = 3;
    /// The plugin could not use the request; the message is its reason.
    pub const BAD_REQUEST: i32 = 4;
    /// The deadline passed.
    pub const DEADLINE: i32 = 5;
    /// The plugin panicked; the panic did not leave it.
    pub const PANICKED: i32 = 6;
    /// The reply is larger than the host accepts.
    pub const REPLY_TOO_LARGE: i32 = 7;
    /// The peer may not do this.
    pub const DENIED: i32 = 8;
    /// The host is ending.
    pub const ENDING: i32 = 9;
    /// The host has too much to do.
    pub const BUSY: i32 = 10;
    /// What was asked for is not possible as things are; the message says why.
    pub const NOT_POSSIBLE: i32 = 11;
}
