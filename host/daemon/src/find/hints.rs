//! Watches the plugin directory. A watcher only hints: whatever it says, or fails to say,
//! the next rescan finds the truth.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};

/// Which directory is watched: device and inode, because a path may come to name another.
type Identity = (u64, u64);

/// Watches the plugin directory, as long as it is the same one.
pub(crate) struct Hints {
    dir: PathBuf,
    enabled: bool,
    hint: Arc<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
}

enum State {
    Off(String),
    /// The watcher works until it is dropped.
    On {
        _watcher: RecommendedWatcher,
        identity: Identity,
    },
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
            state: Mutex::new(State::Off(why.to_owned())),
        }
    }

    /// Starts watching, or starts anew if the plugin directory is another one than before.
    pub(crate) fn keep(&self) {
        if !self.enabled {
            return;
        }
        let dir = &self.dir;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let identity_now = identity(dir);
        if let (State::On { identity, .. }, Ok(now)) = (&*state, &identity_now)
            && identity == now
        {
            return;
        }
        let next = match identity_now.and_then(|id| self.watch(dir).map(|watcher| (watcher, id))) {
            Ok((_watcher, identity)) => State::On { _watcher, identity },
            Err(reason) => {
                if !matches!(&*state, State::Off(before) if *before == reason) {
                    tracing::warn!(target: "hotmerge::watch", "the plugin directory is not watched: {reason}");
                }
                State::Off(reason)
            }
        };
        *state = next;
    }

    fn watch(&self, dir: &Path) -> Result<RecommendedWatcher, String> {
        let hint = Arc::clone(&self.hint);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if is_hint(&event) {
                tracing::trace!(target: "hotmerge::watch", ?event, "something changed");
                hint();
            }
        })
        .map_err(|error| error.to_string())?;
        watcher
            .watch(dir, RecursiveMode::Recursive)
            .map_err(|error| error.to_string())?;
        Ok(watcher)
    }

    pub(crate) fn describe(&self) -> String {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::On { .. } => "inotify".to_owned(),
            State::Off(reason) => format!("off: {reason}"),
        }
    }

    pub(crate) fn stop(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State::Off("the host stops".to_owned());
    }
}

fn identity(dir: &Path) -> Result<Identity, String> {
    let metadata = fs::metadata(dir).map_err(|error| error.to_string())?;
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
