//! What a worker prints and logs, read with a limit: a flood must cost the plugin, not the host.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use hotmerge_abi::CallContext;
use hotmerge_loader::LogRecord;
use hotmerge_meta::PluginName;
use hotmerge_sandbox::message::{Inbox, Taken, record};
use rustix::io::Errno;

use crate::{log, upward::Upward};

/// How much one source may say …
const BUDGET: usize = 256 << 10;
/// … in this time. The rest waits; a source that cannot wait drops it and counts it.
pub(super) const PERIOD: Duration = Duration::from_millis(500);
/// The longest line; the rest becomes another line.
const LINE: usize = 4 << 10;
/// Messages that are taken at a time from a worker that lives.
pub(super) const AT_ONCE: usize = 64;
/// Most that are taken from one that has ended; a pipe holds some thousand.
pub(super) const LEFT: usize = 4096;

/// A limit on how much is taken from a source.
#[derive(Debug)]
pub(super) struct Budget {
    since: Instant,
    left: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            left: BUDGET,
        }
    }

    /// Whether more may be taken now.
    pub(super) fn is_open(&mut self) -> bool {
        if self.since.elapsed() >= PERIOD {
            *self = Self::new();
        }
        self.left > 0
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        // Small records cost as well.
        self.left = self.left.saturating_sub(bytes.max(64));
    }
}

/// Forwards the output of a plugin in a worker to the host's log.
#[derive(Debug)]
pub(super) struct PluginLog {
    plugin: PluginName,
    upward: Arc<dyn Upward>,
}

impl PluginLog {
    pub(super) fn new(plugin: PluginName, upward: Arc<dyn Upward>) -> Self {
        Self { plugin, upward }
    }

    /// Whose records these are.
    pub(super) fn plugin(&self) -> &PluginName {
        &self.plugin
    }

    fn log(&self, record: LogRecord<'_>) {
        self.upward.log(record);
    }
}

/// Standard output or error of a worker.
#[derive(Debug)]
pub(super) struct Printed {
    pub(super) pipe: Option<OwnedFd>,
    pub(super) budget: Budget,
    line: Vec<u8>,
    name: &'static str,
}

impl Printed {
    pub(super) fn new(pipe: OwnedFd, name: &'static str) -> Self {
        Self {
            pipe: Some(pipe),
            budget: Budget::new(),
            line: Vec::new(),
            name,
        }
    }

    /// Reads what is available.
    pub(super) fn take(&mut self, plugin: &PluginName) {
        let Some(pipe) = &self.pipe else { return };
        let mut bytes = [0; 4096];
        match rustix::io::read(pipe, &mut bytes) {
            Ok(0) => self.pipe = None,
            Ok(len) => {
                self.budget.spend(len);
                for byte in &bytes[..len] {
                    if *byte == b'\n' || self.line.len() >= LINE {
                        self.flush(plugin);
                    }
                    if *byte != b'\n' {
                        self.line.push(*byte);
                    }
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.pipe = None,
        }
    }

    /// Logs an incomplete last line.
    pub(super) fn flush(&mut self, plugin: &PluginName) {
        if !self.line.is_empty() {
            let text = String::from_utf8_lossy(&self.line);
            log::printed(plugin, self.name, &text);
            self.line.clear();
        }
    }
}

/// Takes records from the log pipe, and returns how many. The last ones of a worker that has
/// ended say why: they are taken whatever it has said before.
pub(super) fn take_records(
    pipe: &OwnedFd,
    records: &mut Inbox,
    budget: &mut Budget,
    log: &PluginLog,
    has_ended: bool,
) -> usize {
    let mut taken = 0;
    for _ in 0..if has_ended { LEFT } else { AT_ONCE } {
        if !has_ended && !budget.is_open() {
            break;
        }
        match records.next(pipe) {
            Taken::Message(bytes) => {
                budget.spend(bytes.len());
                write(bytes, log);
                taken += 1;
            }
            // Nothing more in this period, or each byte would cost a look.
            Taken::Torn => budget.spend(BUDGET),
            Taken::Nothing => break,
        }
    }
    taken
}

/// Logs a record, if it is one.
fn write(bytes: &[u8], log: &PluginLog) {
    let Some((head, message)) = bytes.split_at_checked(record::HEAD_BYTES) else {
        return;
    };
    let mut call = CallContext::default();
    call.trace_id.copy_from_slice(&head[2..18]);
    call.span_id.copy_from_slice(&head[18..26]);
    log.log(LogRecord {
        level: head[0].into(),
        target: "",
        message: &String::from_utf8_lossy(message),
        call: (head[1] != 0).then_some(&call),
    });
}

#[cfg(test)]
mod tests {
    use hotmerge_sandbox::message::length;
    use rustix::pipe::{PipeFlags, pipe_with};

    use hotmerge_loader::{CallError, HostServices, OutgoingCall, Reply};

    use super::*;
    use crate::{cancel::Cancel, upward::Report};

    /// A host that takes records and does nothing else.
    #[derive(Debug)]
    struct Nobody;

    impl HostServices for Nobody {
        fn call(&self, _: OutgoingCall<'_>, _: &mut Reply) -> Result<(), CallError> {
            Err(CallError::Unsupported)
        }

        fn log(&self, _: LogRecord<'_>) {}
    }

    impl Upward for Nobody {
        fn report(&self, _: Report) {}

        fn call_until(
            &self,
            _: &Cancel,
            _: OutgoingCall<'_>,
            _: &mut Reply,
        ) -> Result<(), CallError> {
            Err(CallError::Unsupported)
        }
    }

    #[test]
    fn all_final_records_of_a_worker_are_read() {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let record = [&length(record::HEAD_BYTES)[..], &[0; record::HEAD_BYTES]].concat();
        let written = (0..200)
            .take_while(|_| rustix::io::write(&theirs, &record).is_ok())
            .count();
        drop(theirs);
        let log = PluginLog::new("a".parse().unwrap(), Arc::new(Nobody));
        let mut budget = Budget::new();
        let mut inbox = Inbox::default();
        let mut take = |has_ended| take_records(&ours, &mut inbox, &mut budget, &log, has_ended);
        assert_eq!(take(false), AT_ONCE);
        let left = written - AT_ONCE;
        assert!(left > AT_ONCE, "the pipe takes only {written}");
        assert_eq!(take(true), left);
    }

    #[test]
    fn a_partial_record_pauses_the_log() {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let log = PluginLog::new("a".parse().unwrap(), Arc::new(Nobody));
        let (mut budget, mut inbox) = (Budget::new(), Inbox::default());
        rustix::io::write(&theirs, &[100, 0, 1]).unwrap();
        let taken = take_records(&ours, &mut inbox, &mut budget, &log, false);
        assert_eq!((taken, budget.left), (0, 0));
    }
}
