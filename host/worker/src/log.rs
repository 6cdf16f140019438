//! Log records to the host: one message each, never waited for.

use std::os::fd::BorrowedFd;

use hotmerge_loader::{HostServices, LogRecord};
use hotmerge_sandbox::descriptor;
use hotmerge_wire::Server;

/// Longest record in bytes; a longer message is cut.
const LIMIT: usize = 8 << 10;

/// The socket to the host. Its other end is read in order, with a limit.
pub(crate) struct LogSocket(pub(crate) &'static Server);

impl HostServices for LogSocket {
    fn log(&self, record: LogRecord<'_>) {
        let mut bytes = Vec::with_capacity(64 + record.message.len().min(LIMIT));
        let level = u8::try_from(record.level).unwrap_or(u8::MAX);
        bytes.extend([level, u8::from(record.call.is_some())]);
        match record.call {
            Some(call) => {
                bytes.extend(call.trace_id);
                bytes.extend(call.span_id);
            }
            None => bytes.extend([0; 24]),
        }
        let message = record.message.as_bytes();
        bytes.extend(&message[..message.len().min(LIMIT)]);
        // SAFETY: the descriptor is the worker's by agreement; if the plugin closed it, the
        // write fails.
        let socket = unsafe { BorrowedFd::borrow_raw(descriptor::LOG) };
        if rustix::io::write(socket, &bytes).is_err() {
            self.0.count_dropped_log();
        }
    }
}
