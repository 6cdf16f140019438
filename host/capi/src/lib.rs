//! A host inside a main process of any language: what `libhotmerge.so` exports and `hotmerge.h` declares.
//!
//! # Rules of this interface
//!
//! * A function returns [`HM_OK`] or a negative code; [`hm_last_error`] has the sentence, per thread.
//! * Memory belongs to whoever allocated it. The library writes into the caller's buffers and says how many
//!   bytes there are; a buffer that is too small is left untouched ([`HM_TOO_SMALL`]), and what did not
//!   fit can be fetched without doing the work again.
//! * Text is UTF-8 and ends with NUL, except where a length is given.
//! * Handles are never freed: a host that was stopped, and the handles of its plugins, answer
//!   [`HM_STOPPED`] for as long as the process lives. A few hundred bytes per start remain for that.
//! * Every function may be called from any thread, except from signal handlers and in a child after `fork`.
//!   The latter is refused ([`HM_FORKED`]).
//! * A panic never crosses: it is [`HM_BUG`], with its message.
//!
//! Each file of this crate has one group of functions. `exported` is the border: it turns pointers into
//! references and outcomes into codes.
//!
//! Absent on purpose: a control socket, signals and log files. The main process has its own.

mod callbacks;
mod calls;
mod code;
mod events;
mod exported;
mod fork;
mod host;
mod log;
mod rpc;

pub use calls::{
    Answer, Cancel, Options, hm_call, hm_cancel_calls, hm_cancel_free, hm_cancel_new, hm_take_reply,
};
pub use code::*;
pub use events::{Event, EventCallback, EventKind, hm_off_event, hm_on_event};
pub use exported::hm_last_error;
pub use host::{Host, Plugin, hm_plugin, hm_reload, hm_start, hm_status, hm_stop, hm_version};
pub use log::{LogCallback, LogRecord, hm_off_log, hm_on_log};
pub use rpc::hm_rpc;
