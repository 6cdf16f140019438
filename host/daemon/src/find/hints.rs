//! Watches the plugin directory, and the way to it. A watcher only hints: whatever it says, or fails
//! to say, the next rescan finds the truth.
//!
//! Neither its name nor its inode number tells a directory from another one: both are used again. The
//! watch is begun anew when the kernel tells that something on the way is gone, too.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};

use super::{
    errors::WatchError,
    way::{Turned, Way},
};

/// Which directory is watched: device and inode, because a path may come to name another.
type Identity = (u64, u64);

/// How often watching is begun anew at once if the directory changes meanwhile.
const ATTEMPTS: usize = 3;

/// Watches the plugin directory, as long as it is the same one.
pub(crate) struct Hints {
    dir: PathBuf,
    enabled: bool,
    hint: Arc<dyn Fn() + Send + Sync>,
    state: Mutex<Watching>,
}

enum Watching {
    Off(String),
    /// The watcher works until it is dropped.
    On {
        _watcher: RecommendedWatcher,
        way: io::Result<Way>,
        identity: Identity,
        /// Whether the path means something else since.
        turned: Arc<AtomicBool>,
    },
}

impl Watching {
    /// Whether what is watched is what the path means, as far as the kernel has told.
    fn is_of(&self, now: Identity) -> bool {
        matches!(self, Self::On { identity, turned, .. }
            if *identity == now && !turned.load(Ordering::Acquire))
    }
}

impl Hints {
    /// `hint` is called whenever something may have changed. It must not block.
    pub(crate) fn new(dir: PathBuf, enabled: bool, hint: Arc<dyn Fn() + Send + Sync>) -> Self {
        let why = if enabled {
            "not started"
        } else {
            "off by configuration"
        };
        Self {
            dir,
            enabled,
            hint,
            state: Mutex::new(Watching::Off(why.to_owned())),
        }
    }

    /// Starts watching, or starts anew if the plugin directory is another one than before.
    pub(crate) fn keep(&self) {
        if !self.enabled {
            return;
        }
        let mut state = self.lock();
        for _ in 0..ATTEMPTS {
            let now = identity(&self.dir);
            if now.as_ref().is_ok_and(|now| state.is_of(*now)) {
                return;
            }
            *state = match now.and_then(|identity| self.watch(identity)) {
                Ok(on) => on,
                Err(error) => {
                    let reason = error.to_string();
                    if !matches!(&*state, Watching::Off(before) if *before == reason) {
                        tracing::warn!(target: "hotmerge::watch", "the plugin directory is not watched: {reason}");
                    }
                    *state = Watching::Off(reason);
                    return;
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watching> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, identity: Identity) -> Result<Watching, WatchError> {
        let turned = Arc::new(AtomicBool::new(false));
        let way = {
            let (hint, turned) = (Arc::clone(&self.hint), Arc::clone(&turned));
            Way::watch(&self.dir, move |how| {
                if how == Turned::Away {
                    turned.store(true, Ordering::Release);
                }
                hint();
            })
        };
        if let Err(reason) = &way {
            tracing::warn!(target: "hotmerge::watch", "the way to the plugin directory is not watched: {reason}");
        }
        let hint = Arc::clone(&self.hint);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if is_hint(&event) {
                tracing::trace!(target: "hotmerge::watch", ?event, "something changed");
                hint();
            }
        })?;
        watcher.watch(&self.dir, RecursiveMode::Recursive)?;
        Ok(Watching::On {
            _watcher: watcher,
            way,
            identity,
            turned,
        })
    }

    /// What is watched, or why nothing is.
    pub(crate) fn describe(&self) -> String {
        match &*self.lock() {
            Watching::On { turned, .. } if turned.load(Ordering::Acquire) => {
                "off: the plugin directory was replaced, and is looked for".to_owned()
            }
            Watching::On { way: Ok(_), .. } => "inotify".to_owned(),
            Watching::On { way: Err(why), .. } => {
                format!("inotify, but for what leads to the plugin directory: {why}")
            }
            Watching::Off(reason) => format!("off: {reason}"),
        }
    }

    #[cfg(test)]
    fn is_up_to_date(&self) -> bool {
        identity(&self.dir).is_ok_and(|now| self.lock().is_of(now))
    }

    pub(crate) fn stop(&self) {
        *self.lock() = Watching::Off("the host stops".to_owned());
    }
}

fn identity(dir: &Path) -> Result<Identity, WatchError> {
    let metadata = fs::metadata(dir)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The host's own reading must not look like a change, or it would never rest. Errors and
/// overflows are hints: something may have been missed.
fn is_hint(event: &notify::Result<Event>) -> bool {
    match event {
        Ok(event) => match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        },
        Err(error) => {
            tracing::warn!(target: "hotmerge::watch", "the watcher reports: {error}");
            true
        }
    }
}

#[cfg(test)]
mod tests;
