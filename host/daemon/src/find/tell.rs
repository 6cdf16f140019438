//! What every watcher is, and how it tells of changes: by the set of dirty packages and a hint.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use hotmerge_meta::PackageName;

use super::dirty::{Change, DirtySet};

/// Wakes whoever looks. Called from the watchers' threads; it must not block.
pub(crate) type Hint = Arc<dyn Fn() + Send + Sync>;

/// Watches the plugin directory and the directories of packages in it, until it is dropped.
pub(super) trait Watcher: Send {
    /// Watches a package's directory: anew if it may be another one of that name.
    fn cover(&mut self, package: &PackageName, is_replaced: bool);

    /// There is no such package any more.
    fn uncover(&mut self, package: &PackageName);

    /// File systems were mounted or unmounted: what is not what it was is not covered any more.
    fn check_mounts(&mut self);

    /// Tries again, at the next pass, what could not be watched.
    fn retry(&mut self);

    /// Number of directories that are watched.
    fn directories(&self) -> u64;

    /// What is watched by one mark or watch.
    fn scope(&self) -> String;

    /// Why changes of some packages are not noticed.
    fn failure(&self) -> Option<String>;
}

/// What one kind of watcher has told since the host's start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Events in the plugin directory.
    pub(super) events: AtomicU64,
    /// How often events were lost.
    pub(super) overflows: AtomicU64,
}

/// How one watcher tells of changes.
pub(super) struct Teller {
    dirty: Arc<DirtySet>,
    hint: Hint,
    counts: Arc<Counts>,
    is_behind: AtomicBool,
}

impl Teller {
    pub(super) fn new(dirty: Arc<DirtySet>, hint: Hint, counts: Arc<Counts>) -> Arc<Self> {
        Arc::new(Self {
            dirty,
            hint,
            counts,
            is_behind: AtomicBool::new(false),
        })
    }

    /// Something in the directory of this name, or of this name in the plugin directory.
    pub(super) fn changed(&self, name: &str, change: Change) {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        if self.dirty.mark(name, change) {
            tracing::trace!(target: "hotmerge::watch", name, ?change, "something changed");
            (self.hint)();
        }
    }

    /// The plugin directory itself, or what has no name.
    pub(super) fn anything_changed(&self) {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        self.dirty.mark_all(false);
        (self.hint)();
    }

    /// Events are lost: everything is dirty, and the watcher is begun anew because it may have
    /// missed that directories were replaced.
    pub(super) fn lost_events(&self, why: &dyn std::fmt::Display) {
        tracing::warn!(target: "hotmerge::watch", "events are lost, everything is looked at: {why}");
        self.counts.overflows.fetch_add(1, Ordering::Relaxed);
        self.is_behind.store(true, Ordering::Release);
        self.dirty.mark_all(false);
        (self.hint)();
    }

    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Acquire)
    }
}
