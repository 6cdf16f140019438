//! A canary: a new version that first takes only a share of the calls.
//!
//! Invariant: without one, a call pays for a single relaxed load of a number that is rarely
//! written.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hotmerge_loader as loader;
use hotmerge_swap::{Draining, VersionCell};

use super::version::Version;

#[derive(Debug, Default)]
pub(crate) struct Canary {
    pub(crate) version: VersionCell<Version>,
    /// The canary's share of 2³² calls; 0 without a canary.
    share: AtomicU32,
    calls: AtomicU64,
    failed: AtomicU64,
}

impl Canary {
    #[inline(always)]
    pub(crate) fn takes_some(&self) -> bool {
        self.share.load(Ordering::Relaxed) != 0
    }

    #[cold]
    pub(crate) fn takes_this(&self) -> bool {
        fastrand::u32(..) < self.share.load(Ordering::Relaxed)
    }

    /// Counts a call and its failure.
    #[cold]
    pub(crate) fn count(&self, failed: Option<&loader::CallError>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // Bad requests, unsupported media types, short deadlines and cancelled calls say nothing about
        // the version.
        let is_its_fault = !matches!(
            failed,
            None | Some(
                loader::CallError::BadRequest(_)
                    | loader::CallError::NotAcceptable(_)
                    | loader::CallError::UnsupportedMedia(_)
                    | loader::CallError::Deadline
                    | loader::CallError::Cancelled
            )
        );
        if is_its_fault {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn begin(&self, version: Box<Version>, share: f64) {
        self.calls.store(0, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
        self.version.swap(Some(version));
        let share = (share * f64::from(u32::MAX)) as u32;
        self.share.store(share.max(1), Ordering::Relaxed);
    }

    pub(crate) fn end(&self) -> Option<Draining<Version>> {
        self.share.store(0, Ordering::Relaxed);
        self.version.swap(None)
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.calls), read(&self.failed))
    }
}
