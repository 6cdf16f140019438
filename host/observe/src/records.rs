//! The last records of the log, kept in memory for readers.
//!
//! Invariant: what is kept is bounded in records and bytes. A reader holds the lock for a bounded time
//! only and keeps nothing here: a slow reader loses records, learns how many, and delays nothing.
//!
//! Absent on purpose: who may read, and where else records go.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use hotmerge_meta::control::{LogsParams, LogsReply};
use jiff::Timestamp;

use crate::record::Record;

/// The most records that are read under the lock at once.
const PORTION: usize = 256;
/// The most records of one answer.
const ANSWER: usize = 1024;
/// The most bytes of one answer, about.
const ANSWER_BYTES: usize = 1 << 20;
/// The longest time that a reader may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How much to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most records; 0 keeps none.
    pub records: usize,
    /// The most bytes, approximately.
    pub bytes: usize,
}

/// The last records of the log.
#[derive(Debug)]
pub struct Records {
    limits: Limits,
    kept: Mutex<Kept>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    /// How many were kept once and are not any more.
    forgotten: u64,
}

impl Kept {
    fn end(&self) -> u64 {
        self.forgotten + self.records.len() as u64
    }
}

impl Records {
    /// An empty log.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            kept: Mutex::default(),
            grown: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, record: Arc<Record>) {
        let mut gone = Vec::new();
        {
            let mut kept = self.lock();
            kept.bytes += record.bytes();
            kept.records.push_back(record);
            while kept.records.len() > self.limits.records || kept.bytes > self.limits.bytes {
                let Some(oldest) = kept.records.pop_front() else {
                    break;
                };
                kept.bytes -= oldest.bytes();
                kept.forgotten += 1;
                gone.push(oldest);
            }
        }
        // Freed without the lock, unless somebody reads them.
        drop(gone);
        self.grown.notify_all();
    }

    /// The requested records, and where to continue. Waits if there is none yet and the request permits
    /// that.
    pub fn read(&self, wanted: &LogsParams) -> LogsReply {
        let wait = Duration::from_millis(wanted.wait_ms).min(LONGEST_WAIT);
        let until = Instant::now() + wait;
        let mut reply = self.begin(wanted.from);
        loop {
            self.fill(&mut reply, wanted);
            let left = until.saturating_duration_since(Instant::now());
            if !reply.records.is_empty() || left.is_zero() {
                return reply;
            }
            let nothing_new = |kept: &mut Kept| kept.end() <= reply.next;
            let waited = self
                .grown
                .wait_timeout_while(self.lock(), left, nothing_new);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn begin(&self, from: Option<u64>) -> LogsReply {
        let kept = self.lock();
        let end = kept.end();
        LogsReply {
            // A position behind the end is of another host.
            next: from.filter(|from| *from <= end).unwrap_or(kept.forgotten),
            end,
            ..LogsReply::default()
        }
    }

    /// Adds the requested records, within the limits of an answer.
    fn fill(&self, reply: &mut LogsReply, wanted: &LogsParams) {
        let mut bytes = 0;
        loop {
            let portion = self.portion(reply);
            if portion.is_empty() {
                return;
            }
            for record in portion {
                let is_full = reply.records.len() >= ANSWER || bytes >= ANSWER_BYTES;
                if is_full {
                    return;
                }
                if is_wanted(&record, wanted) {
                    bytes += record.bytes();
                    reply.records.push(record.entry(reply.next));
                }
                reply.next += 1;
            }
        }
    }

    /// The next records, before any filter.
    fn portion(&self, reply: &mut LogsReply) -> Vec<Arc<Record>> {
        let kept = self.lock();
        reply.end = kept.end();
        let lost = kept.forgotten.saturating_sub(reply.next);
        reply.lost += lost;
        reply.next += lost;
        let skip = usize::try_from(reply.next - kept.forgotten).unwrap_or(usize::MAX);
        let rest = kept.records.iter().skip(skip);
        rest.take(PORTION).cloned().collect()
    }
}

fn is_wanted(record: &Record, wanted: &LogsParams) -> bool {
    let LogsParams {
        from: _,
        plugins,
        level,
        since_ms,
        trace_id,
        wait_ms: _,
    } = wanted;
    let plugin = record.plugin.as_deref();
    (plugins.is_empty() || plugin.is_some_and(|own| plugins.iter().any(|it| *it == *own)))
        && level.is_none_or(|least| record.level >= least)
        && since_ms.is_none_or(|since| ms(record.time) >= since)
        && trace_id
            .as_ref()
            .is_none_or(|id| record.trace_id.as_ref() == Some(id))
}

/// Milliseconds since 1970.
fn ms(time: SystemTime) -> i64 {
    Timestamp::try_from(time).map_or(0, Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests;
