//! What the host does for the plugin: takes log records, each a message or a few and never waited for,
//! and carries calls to the plugins that it requires.

use std::os::fd::BorrowedFd;

use hotmerge_abi::CallContext;
use hotmerge_loader::{CallError, HostServices, LogRecord, OutgoingCall, Reply};
use hotmerge_sandbox::{
    descriptor,
    message::{LARGEST, LENGTH_BYTES, length, record::HEAD_BYTES},
};
use hotmerge_wire::{Answer, Caller, NoAnswer, Request, Server, op};

/// Longest text of a log record in bytes; a longer one is cut.
const LIMIT: usize = 8 << 10;

/// Longest text of a message in bytes; a longer one becomes several.
const PART: usize = LARGEST - HEAD_BYTES;

/// The ways to the host.
pub(crate) struct Services {
    pub(crate) server: &'static Server,
    /// If the plugin requires any.
    pub(crate) outgoing: Option<Caller>,
}

impl HostServices for Services {
    fn log(&self, record: LogRecord<'_>) {
        let end = record.message.floor_char_boundary(LIMIT);
        let mut rest = &record.message[..end];
        loop {
            let (part, more) = rest.split_at(rest.floor_char_boundary(PART));
            if !send(&record, part) {
                self.server.count_dropped_log();
            }
            rest = more;
            if rest.is_empty() {
                return;
            }
        }
    }

    fn call(&self, call: OutgoingCall<'_>, reply: &mut Reply) -> Result<(), CallError> {
        let OutgoingCall {
            plugin,
            method,
            media,
            ..
        } = call;
        let outgoing = self.outgoing.as_ref().ok_or_else(|| {
            CallError::NoPlugin(format!(
                "`{plugin}` may not be called: the plugin.meta does not require it"
            ))
        })?;
        let none = CallContext::default();
        let mut head = format!("{plugin} {method}");
        if !media.is_empty() {
            head = media.join(&head);
        }
        let request = Request {
            op: op::CALL_OTHER,
            context: call.context.unwrap_or(&none),
            method: &head,
            bytes: call.request,
            reply_limit: reply.limit(),
            give_up_ns: 0,
            cancel: None,
            on_behalf_of: None,
        };
        match outgoing.ask(&request, reply.take_buffer()) {
            Ok(Answer::Reply { bytes, media_type }) => {
                reply.fill(bytes, &media_type);
                Ok(())
            }
            Ok(Answer::Refusal { status, reason }) => Err(CallError::of(status, &reason, method)),
            Err(NoAnswer::Deadline) => Err(CallError::Deadline),
            Err(failure) => Err(CallError::BadRequest(failure.to_string())),
        }
    }
}

/// Sends a message with a record, or a part of it. Returns whether there was room.
fn send(record: &LogRecord<'_>, text: &str) -> bool {
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + HEAD_BYTES + text.len());
    bytes.extend(length(HEAD_BYTES + text.len()));
    let level = u8::try_from(record.level).unwrap_or(u8::MAX);
    bytes.extend([level, u8::from(record.call.is_some())]);
    match record.call {
        Some(call) => {
            bytes.extend(call.trace_id);
            bytes.extend(call.span_id);
        }
        None => bytes.resize(LENGTH_BYTES + HEAD_BYTES, 0),
    }
    bytes.extend(text.as_bytes());
    // SAFETY: the descriptor is the worker's by agreement; if the plugin closed it, the
    // write fails.
    let pipe = unsafe { BorrowedFd::borrow_raw(descriptor::LOG) };
    rustix::io::write(pipe, &bytes).is_ok()
}
