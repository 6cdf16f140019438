//! The protocol between driver, command line and host on the control socket.
//!
//! JSON-RPC 2.0, one object per line ([`frame`](crate::frame)), on a Unix stream socket. The
//! host answers each request once; answers may arrive in a different order.
//!
//! Absent on purpose: a server (the host's own loop is one), batches, notifications.

mod client;
mod debug;
mod description;
mod logs;
mod message;
mod status;

pub use client::{Client, ClientError, ConnectError};
pub use debug::{
    DebugAttempt, DebugChoice, DebugHealth, DebugRefused, DebugReport, DebugVersion, DebugWorker,
};
pub use description::{DescribedMethod, Description, DescriptionError, Payload};
pub use jsonrpsee_types::{ErrorObjectOwned, Id, Request, Response, ResponsePayload};
pub use logs::{
    LogDropped, LogEntry, LogLevel, LogLevelError, LogSinkError, LogSinkStatus, LogsParams,
    LogsReply,
};
pub use message::{
    Action, Base64, CallParams, CallReply, Change, ConfigReport, HistoryParams, PluginParams,
    PluginReport, Problem, ReloadParams, ReloadReport, RollbackParams, TraceParent,
    TraceParentError, Transition,
};
pub use status::{
    CanaryStatus, ConfigRefused, ConfigStatus, DoorStatus, EndingStatus, FailureStatus, HostStatus,
    KeptStatus, KeyChange, PluginState, PluginStatus, RefusedStatus, SavedStatus, SignedStatus,
    Stage, Status, StoreFailure, WatcherStatus, WorkerStatus, sentence,
};

pub use crate::frame::MAX_FRAME_BYTES;

/// The host's methods.
pub mod method {
    /// The running plugins. No parameters; the reply is the host's status object.
    pub const STATUS: &str = "status";
    /// Rescan and wait. [`ReloadParams`](super::ReloadParams) to
    /// [`ReloadReport`](super::ReloadReport).
    pub const RELOAD: &str = "reload";
    /// Where the host's history ends. No parameters; the reply is a number for
    /// [`ReloadParams::since`](super::ReloadParams::since).
    pub const POSITION: &str = "position";
    /// Call a plugin. [`CallParams`](super::CallParams) to [`CallReply`](super::CallReply).
    pub const CALL: &str = "call";
    /// A plugin's description of itself. [`PluginParams`](super::PluginParams) to
    /// [`Description`](super::Description); [`NOT_POSSIBLE`](super::code::NOT_POSSIBLE) of a plugin
    /// that does not describe itself.
    pub const DESCRIBE: &str = "describe";
    /// Go back to an earlier version. [`RollbackParams`](super::RollbackParams) to
    /// [`PluginReport`](super::PluginReport).
    pub const ROLLBACK: &str = "rollback";
    /// Keep the running version, regardless of the directory. [`PluginParams`](super::PluginParams) to
    /// [`PluginReport`](super::PluginReport).
    pub const PIN: &str = "pin";
    /// Follow the directory again. Like [`PIN`].
    pub const UNPIN: &str = "unpin";
    /// Past transitions. [`HistoryParams`](super::HistoryParams) to a list of
    /// [`Transition`](super::Transition)s, oldest first; [`NOT_POSSIBLE`](super::code::NOT_POSSIBLE)
    /// for an unknown plugin.
    pub const HISTORY: &str = "history";
    /// The last records of the host's log. [`LogsParams`](super::LogsParams) to
    /// [`LogsReply`](super::LogsReply). A request that finds none may wait for the next one.
    pub const LOGS: &str = "logs";
    /// Everything that the host knows about one plugin, for debugging.
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
    /// The host has no method with that name.
    pub const NO_METHOD: i32 = -32601;
    /// The parameters are invalid for the method.
    pub const INVALID_PARAMS: i32 = -32602;
    /// The host itself failed.
    pub const INTERNAL: i32 = -32603;
    /// No plugin with that name is active.
    pub const NO_PLUGIN: i32 = 1;
    /// The plugin has no method with that name.
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
    /// The peer is not permitted to do this.
    pub const DENIED: i32 = 8;
    /// The host is ending.
    pub const ENDING: i32 = 9;
    /// The host is overloaded.
    pub const BUSY: i32 = 10;
    /// The request is not possible in the current state; the message gives the reason.
    pub const NOT_POSSIBLE: i32 = 11;
    /// The plugin can reply in none of the accepted media types; the message names those it can.
    pub const NOT_ACCEPTABLE: i32 = 12;
    /// The plugin does not understand the request's media type; the message names those it does.
    pub const UNSUPPORTED_MEDIA: i32 = 13;
}
