//! Which packages may have changed since the last scan.
//!
//! This is a set, not a queue: a package that changes a thousand times is in it once, and the next scan
//! finds its current state. It is bounded: too many names turn it into "all packages".
//!
//! Absent on purpose: what happened to a package. The next scan finds that out.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hotmerge_meta::PackageName;

/// With more packages than this, a pass over the directory is cheaper than the list.
const MOST_NAMES: usize = 1024;

/// How a package may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Something in its directory changed.
    Contents,
    /// The directory itself may have been replaced by one that is not watched.
    Directory,
}

/// Which packages may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dirty {
    /// These.
    Named(BTreeMap<PackageName, Change>),
    /// Any.
    All {
        /// Whether unknown directories may have been replaced.
        is_stale: bool,
    },
}

impl Dirty {
    /// Every package; their directories are watched.
    pub const ALL: Self = Self::All { is_stale: false };

    /// The contents of these packages.
    pub fn contents(packages: impl IntoIterator<Item = PackageName>) -> Self {
        let packages = packages.into_iter();
        Self::Named(packages.map(|name| (name, Change::Contents)).collect())
    }

    /// This and all other packages.
    pub(crate) fn widen(&self) -> Self {
        Self::All {
            is_stale: self.is_stale(),
        }
    }

    /// Whether a directory may have been replaced.
    fn is_stale(&self) -> bool {
        match self {
            Self::Named(names) => names.values().any(|change| *change == Change::Directory),
            Self::All { is_stale } => *is_stale,
        }
    }

    /// Whether nothing may have changed.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Named(names) if names.is_empty())
    }

    fn mark(&mut self, name: &str, change: Change) {
        let Self::Named(names) = self else {
            if let Self::All { is_stale } = self {
                *is_stale |= change == Change::Directory;
            }
            return;
        };
        if let Some(known) = names.get_mut(name) {
            *known = change.max(*known);
            return;
        }
        match name.parse() {
            Ok(package) if names.len() < MOST_NAMES => {
                names.insert(package, change);
            }
            // Only a pass over the whole directory reports entries that are not packages.
            _ => {
                *self = self.widen();
                self.mark(name, change);
            }
        }
    }
}

impl Default for Dirty {
    fn default() -> Self {
        Self::Named(BTreeMap::new())
    }
}

/// The set that watchers fill and each scan takes.
#[derive(Debug, Default)]
pub(crate) struct DirtySet(Mutex<Dirty>);

impl DirtySet {
    /// Notes a change of the entry `name`, or in its directory. Returns whether that is worth a scan.
    pub(crate) fn mark(&self, name: &str, change: Change) -> bool {
        if is_ignored(name) {
            return false;
        }
        self.lock().mark(name, change);
        true
    }

    /// Notes that anything may have changed.
    pub(crate) fn mark_all(&self, is_stale: bool) {
        let mut dirty = self.lock();
        let is_stale = is_stale || dirty.is_stale();
        *dirty = Dirty::All { is_stale };
    }

    /// Takes what is dirty and leaves the set empty. The caller must scan it.
    pub(crate) fn take(&self) -> Dirty {
        std::mem::take(&mut *self.lock())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Dirty> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the host ignores an entry of the plugin directory: what is being written, and what package
/// managers leave behind.
pub(crate) fn is_ignored(name: &str) -> bool {
    name.starts_with(['.', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> PackageName {
        text.parse().unwrap()
    }

    #[test]
    fn a_package_is_in_the_set_once() {
        let set = DirtySet::default();
        assert!(set.mark("one", Change::Contents));
        assert!(set.mark("one", Change::Directory));
        assert!(set.mark("one", Change::Contents));
        let only = BTreeMap::from([(name("one"), Change::Directory)]);
        assert_eq!(set.take(), Dirty::Named(only));
        assert!(set.take().is_empty());
    }

    #[test]
    fn writing_makes_nothing_dirty() {
        let set = DirtySet::default();
        assert!(!set.mark(".staging-1", Change::Directory));
        assert!(!set.mark("#new", Change::Contents));
        assert!(set.take().is_empty());
    }

    #[test]
    fn too_many_names_become_all_packages() {
        let set = DirtySet::default();
        for index in 0..MOST_NAMES {
            set.mark(&format!("p{index}"), Change::Contents);
        }
        assert!(matches!(&*set.lock(), Dirty::Named(names) if names.len() == MOST_NAMES));
        set.mark("one-more", Change::Contents);
        assert_eq!(*set.lock(), Dirty::ALL);
        set.mark("replaced", Change::Directory);
        assert_eq!(set.take(), Dirty::All { is_stale: true });
    }

    #[test]
    fn a_replaced_directory_is_not_forgotten() {
        let set = DirtySet::default();
        set.mark("one", Change::Directory);
        set.mark_all(false);
        assert_eq!(set.take(), Dirty::All { is_stale: true });
        set.mark("one", Change::Directory);
        assert_eq!(set.take().widen(), Dirty::All { is_stale: true });
        set.mark("one", Change::Directory);
        set.mark("no package!", Change::Contents);
        assert_eq!(set.take(), Dirty::All { is_stale: true });
    }
}
