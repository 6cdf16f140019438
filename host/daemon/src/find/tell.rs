//! The interface of watchers, and how they report changes: by the set of dirty packages and a hint.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use hotmerge_meta::PackageName;

use super::dirty::{Change, DirtySet};
use crate::record::events::WatchEvent;

/// Triggers a scan. Called from the watchers' threads; it must not block.
pub(crate) type Hint = Arc<dyn Fn() + Send + Sync>;

/// Takes what happened to the watchers. Called from their threads as well; it must not block for long.
pub(crate) type Tell = Arc<dyn Fn(WatchEvent) + Send + Sync>;

/// Watches the plugin directory and the directories of packages in it, until it is dropped.
pub(super) trait Watcher: Send {
    /// Watches a package's directory; again if the directory may have been replaced.
    fn cover(&mut self, package: &PackageName, is_replaced: bool);

    /// Stops watching a package that no longer exists.
    fn uncover(&mut self, package: &PackageName);

    /// Drops covers of directories that are others now, after a mount or an unmount.
    fn check_mounts(&mut self);

    /// Lets the next pass try again what could not be watched.
    fn retry(&mut self);

    /// Number of directories that are watched.
    fn directories(&self) -> u64;

    /// What its marks or watches cover.
    fn scope(&self) -> String;

    /// Why it misses changes of some packages.
    fn failure(&self) -> Option<String>;
}

/// Counts of one kind of watcher since the host's start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Events in the plugin directory.
    pub(super) events: AtomicU64,
    /// How often events were lost.
    pub(super) overflows: AtomicU64,
}

/// Reports the changes of one watcher.
pub(super) struct Teller {
    dirty: Arc<DirtySet>,
    hint: Hint,
    tell: Tell,
    counts: Arc<Counts>,
    is_behind: AtomicBool,
}

impl Teller {
    pub(super) fn new(
        dirty: Arc<DirtySet>,
        hint: Hint,
        tell: Tell,
        counts: Arc<Counts>,
    ) -> Arc<Self> {
        Arc::new(Self {
            dirty,
            hint,
            tell,
            counts,
            is_behind: AtomicBool::new(false),
        })
    }

    /// Reports a change in the package directory `name`, or of that entry itself.
    pub(super) fn changed(&self, name: &str, change: Change) {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        if self.dirty.mark(name, change) {
            tracing::trace!(target: "hotmerge::watch", name, ?change, "something changed");
            (self.hint)();
        }
    }

    /// Reports a change of the plugin directory itself, or one without a name.
    pub(super) fn anything_changed(&self) {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        self.dirty.mark_all(false);
        (self.hint)();
    }

    /// Reports lost events: everything is dirty, and the watcher is restarted, because it may have missed
    /// that directories were replaced.
    pub(super) fn lost_events(&self, why: &dyn std::fmt::Display) {
        self.counts.overflows.fetch_add(1, Ordering::Relaxed);
        self.is_behind.store(true, Ordering::Release);
        self.dirty.mark_all(false);
        (self.hint)();
        let reason = why.to_string();
        (self.tell)(WatchEvent::EventsLost { reason });
    }

    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Acquire)
    }
}
