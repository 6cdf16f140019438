//! Counts the fate of one sink's records.
//!
//! Invariant: each record that was meant for the sink is dropped, delivered, failed or waiting. The counts
//! outlast changes of the sink's settings.
//!
//! Absent on purpose: records.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use hotmerge_meta::control::{LogDropped, LogSinkError};
use jiff::Timestamp;

use crate::record::Source;

/// Counts records.
#[derive(Debug, Default)]
pub(super) struct Tally {
    accepted: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped_of_host: AtomicU64,
    dropped_of_plugins: AtomicU64,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    is_failing: bool,
    last: Option<LogSinkError>,
}

/// The counts at one moment.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    pub(super) delivered: u64,
    pub(super) waiting: u64,
    pub(super) failed: u64,
    pub(super) dropped: LogDropped,
    pub(super) is_failing: bool,
    pub(super) last_error: Option<LogSinkError>,
}

impl Tally {
    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn accept(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// There was no room for one that was accepted.
    pub(super) fn drop_accepted(&self, source: Source) {
        self.accepted.fetch_sub(1, Relaxed);
        let count = match source {
            Source::Host => &self.dropped_of_host,
            Source::Plugin => &self.dropped_of_plugins,
        };
        count.fetch_add(1, Relaxed);
    }

    pub(super) fn deliver(&self, count: usize) {
        self.delivered.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn fail(&self, count: usize) {
        self.failed.fetch_add(count as u64, Relaxed);
    }

    /// Notes why a record was not delivered.
    pub(super) fn note(&self, reason: &str) {
        self.trouble().last = Some(LogSinkError {
            time: format!("{:.0}", Timestamp::now()),
            reason: reason.to_owned(),
        });
    }

    /// Notes that the sink fails; returns whether it worked before.
    pub(super) fn fails(&self) -> bool {
        !std::mem::replace(&mut self.trouble().is_failing, true)
    }

    /// Notes that the sink works; returns whether it failed before.
    pub(super) fn works(&self) -> bool {
        std::mem::replace(&mut self.trouble().is_failing, false)
    }

    pub(super) fn counts(&self) -> Counts {
        // What has ended first: a record that ends meanwhile counts as waiting.
        let (delivered, failed) = (self.delivered.load(Relaxed), self.failed.load(Relaxed));
        let accepted = self.accepted.load(Relaxed);
        let trouble = self.trouble();
        Counts {
            delivered,
            waiting: accepted.saturating_sub(delivered + failed),
            failed,
            dropped: LogDropped {
                host: self.dropped_of_host.load(Relaxed),
                plugins: self.dropped_of_plugins.load(Relaxed),
            },
            is_failing: trouble.is_failing,
            last_error: trouble.last.clone(),
        }
    }
}
