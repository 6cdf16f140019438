//! One kind of watcher: running, restarted, failed, or not wanted.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use hotmerge_meta::{PackageName, control::WatcherStatus};

use super::{
    dirty::DirtySet,
    errors::WatchError,
    tell::{Counts, Hint, Tell, Teller, Watcher},
};
use crate::record::events::WatchEvent;

/// Starts watching the plugin directory.
pub(super) type Start =
    Box<dyn Fn(&Path, &Arc<Teller>) -> Result<Box<dyn Watcher>, WatchError> + Send>;

pub(super) struct Kind {
    pub(super) name: &'static str,
    start: Start,
    tell: Tell,
    counts: Arc<Counts>,
    state: KindState,
    /// Whether it was reported that packages are not watched.
    is_failure_told: bool,
}

enum KindState {
    /// The configuration does not want it, or does not demand it and this user may not use it.
    Unwanted,
    /// It does not watch at the moment.
    Ended,
    Failed(String),
    On {
        watcher: Box<dyn Watcher>,
        teller: Arc<Teller>,
    },
}

impl Kind {
    pub(super) fn new(name: &'static str, is_wanted: bool, start: Start, tell: &Tell) -> Self {
        Self {
            name,
            start,
            tell: Arc::clone(tell),
            counts: Arc::default(),
            state: match is_wanted {
                true => KindState::Ended,
                false => KindState::Unwanted,
            },
            is_failure_told: false,
        }
    }

    /// Starts or restarts it. Afterwards no package is covered.
    pub(super) fn begin(&mut self, dir: &Path, dirty: &Arc<DirtySet>, hint: &Hint) {
        if matches!(self.state, KindState::Unwanted) {
            return;
        }
        // The old watcher ends first, because it may hold all that the system provides.
        let told = match std::mem::replace(&mut self.state, KindState::Ended) {
            KindState::Failed(reason) => Some(reason),
            KindState::Unwanted | KindState::Ended | KindState::On { .. } => None,
        };
        let teller = Teller::new(
            Arc::clone(dirty),
            Arc::clone(hint),
            Arc::clone(&self.tell),
            Arc::clone(&self.counts),
        );
        self.state = match (self.start)(dir, &teller) {
            Ok(watcher) => KindState::On { watcher, teller },
            Err(WatchError::NotPermitted) => KindState::Unwanted,
            Err(error) => {
                let reason = error.to_string();
                if told.as_ref() != Some(&reason) {
                    (self.tell)(WatchEvent::NotStarted {
                        kind: self.name,
                        reason: reason.clone(),
                    });
                }
                KindState::Failed(reason)
            }
        };
    }

    pub(super) fn end(&mut self) {
        if !matches!(self.state, KindState::Unwanted) {
            self.state = KindState::Ended;
        }
    }

    pub(super) fn is_on(&self) -> bool {
        matches!(self.state, KindState::On { .. })
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.state, KindState::Failed(_))
    }

    /// Whether it has lost events since it started.
    pub(super) fn is_behind(&self) -> bool {
        matches!(&self.state, KindState::On { teller, .. } if teller.is_behind())
    }

    /// Whether it notices every change.
    pub(super) fn is_whole(&self) -> bool {
        matches!(&self.state, KindState::On { watcher, .. } if watcher.failure().is_none())
    }

    /// Why it misses changes.
    pub(super) fn reason(&self) -> Option<String> {
        let reason = match &self.state {
            KindState::Unwanted => return None,
            KindState::Ended => "not started".to_owned(),
            KindState::Failed(reason) => reason.clone(),
            KindState::On { watcher, .. } => watcher.failure()?,
        };
        Some(format!("{}: {reason}", self.name))
    }

    pub(super) fn check_mounts(&mut self) {
        if let KindState::On { watcher, .. } = &mut self.state {
            watcher.check_mounts();
        }
    }

    pub(super) fn retry(&mut self) {
        if let KindState::On { watcher, .. } = &mut self.state {
            self.is_failure_told &= watcher.failure().is_some();
            watcher.retry();
        }
    }

    pub(super) fn cover(&mut self, package: &PackageName, is_replaced: bool) {
        let KindState::On { watcher, .. } = &mut self.state else {
            return;
        };
        watcher.cover(package, is_replaced);
        if !self.is_failure_told
            && let Some(failure) = watcher.failure()
        {
            self.is_failure_told = true;
            (self.tell)(WatchEvent::Incomplete {
                kind: self.name,
                reason: failure,
            });
        }
    }

    pub(super) fn uncover(&mut self, package: &PackageName) {
        if let KindState::On { watcher, .. } = &mut self.state {
            watcher.uncover(package);
        }
    }

    /// Its status; none if it is not wanted.
    pub(super) fn status(&self) -> Option<WatcherStatus> {
        let (scope, directories) = match &self.state {
            KindState::Unwanted => return None,
            KindState::Ended | KindState::Failed(_) => (String::new(), 0),
            KindState::On { watcher, .. } => (watcher.scope(), watcher.directories()),
        };
        Some(WatcherStatus {
            name: self.name.to_owned(),
            scope,
            directories,
            events: self.counts.events.load(Ordering::Relaxed),
            overflows: self.counts.overflows.load(Ordering::Relaxed),
            failure: match &self.state {
                KindState::Failed(reason) => Some(reason.clone()),
                KindState::On { watcher, .. } => watcher.failure(),
                KindState::Unwanted | KindState::Ended => None,
            },
        })
    }
}
