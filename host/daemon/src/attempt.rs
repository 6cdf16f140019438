//! One attempt to bring a version up: read, verify, start.

use std::{os::fd::OwnedFd, sync::Arc, thread, time::Instant};

use hotmerge_loader::{LoadError, Verified};
use hotmerge_meta::{PackageName, PluginMeta, read_regular};
use hotmerge_swap::Draining;

use crate::{
    instance::Instance,
    lifecycle::{Action, Event, Refused, Ticket},
    plugin::Version,
    scan::{open_dir, open_package},
    supervisor::Supervisor,
};

/// Largest plugin file, in bytes.
const LIMIT_BYTES: u64 = 1 << 30;

/// What is known of a version from the moment it was seen to the moment it has ended.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) package: PackageName,
    pub(crate) meta: PluginMeta,
    pub(crate) began: Instant,
    /// Since when its code runs, and has not come back yet.
    pub(crate) starting: Option<Instant>,
    /// Started, and not switched to yet.
    pub(crate) ready: Option<Instance>,
    /// Switched away from, and not ended yet.
    pub(crate) draining: Option<Draining<Version>>,
}

impl Attempt {
    pub(crate) fn new(package: PackageName, meta: PluginMeta) -> Self {
        Self {
            package,
            meta,
            began: Instant::now(),
            starting: None,
            ready: None,
            draining: None,
        }
    }
}

/// Why verified bytes could not be had.
enum Unverified {
    /// File and meta do not belong together, which may pass.
    Differs(String),
    /// These bytes, with this meta, will never do.
    Refused(String),
}

impl Supervisor {
    pub(crate) fn submit(self: &Arc<Self>, ticket: Ticket) {
        self.jobs.submit(ticket, || self.spawn_worker());
    }

    pub(crate) fn write_off(self: &Arc<Self>, ticket: Ticket) {
        self.jobs.write_off(ticket, || self.spawn_worker());
    }

    fn spawn_worker(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let work = move || this.jobs.work(|ticket| this.bring_up(ticket));
        if let Err(error) = thread::Builder::new()
            .name("candidate".into())
            .spawn(work.clone())
        {
            tracing::error!("failed to start a thread, going on without it: {error}");
            work();
        }
    }

    fn bring_up(self: &Arc<Self>, ticket: Ticket) {
        let Some((package, meta)) = self
            .state()
            .attempts
            .get(&ticket)
            .map(|attempt| (attempt.package.clone(), attempt.meta.clone()))
        else {
            return;
        };
        match self.verify(&package, &meta) {
            Ok(verified) => {
                let hash = meta.hash;
                let actions = self.decide(&meta.name, Event::Verified { ticket, hash });
                if actions.contains(&Action::Start(ticket)) {
                    self.start(ticket, &meta, verified);
                }
            }
            Err(Unverified::Differs(reason)) => self.differs(&meta.name, ticket, reason),
            // The meta may be put right with the same hash; looking again costs no code.
            Err(Unverified::Refused(reason)) => self.fail(ticket, &meta, reason, false),
        }
    }

    fn fail(self: &Arc<Self>, ticket: Ticket, meta: &PluginMeta, reason: String, lasting: bool) {
        let refused = Refused {
            hash: meta.hash,
            reason,
            lasting,
        };
        self.apply(&meta.name, Event::Failed { ticket, refused });
    }

    fn verify(&self, package: &PackageName, meta: &PluginMeta) -> Result<Verified, Unverified> {
        if meta.target != crate::status::TARGET {
            return Err(Unverified::Refused(format!(
                "it was built for {}, this host is {}; build it for this target",
                meta.target,
                crate::status::TARGET
            )));
        }
        let dir = self.open(package).map_err(Unverified::Differs)?;
        let (file, _) = read_regular(&dir, meta.file.as_str(), LIMIT_BYTES)
            .map_err(|error| Unverified::Differs(error.to_string()))?;
        Verified::new(file, meta).map_err(|error| match error {
            // Until it has settled it may be half a file.
            LoadError::Promise(_) | LoadError::Image(_) => {
                Unverified::Differs(format!("file `{}`: {error}", meta.file))
            }
            _ => Unverified::Refused(error.to_string()),
        })
    }

    fn open(&self, package: &PackageName) -> Result<OwnedFd, String> {
        open_package(&open_dir(&self.plugin_dir)?, package)
    }

    fn start(self: &Arc<Self>, ticket: Ticket, meta: &PluginMeta, verified: Verified) {
        let config = match self.config.plugin_json(&meta.name) {
            Ok(config) => config,
            Err(reason) => return self.fail(ticket, meta, reason, true),
        };
        let now = Instant::now();
        if let Some(attempt) = self.state().attempts.get_mut(&ticket) {
            attempt.starting = Some(now);
        }
        self.clock.wake_at(now + self.config.start());
        let result = Instance::start(&meta.name, verified, &config, &self.cells);
        let mut state = self.state();
        let Some(attempt) = state.attempts.get_mut(&ticket) else {
            drop(state);
            if let Ok(instance) = result {
                self.discard(&meta.name, instance);
            }
            return;
        };
        attempt.starting = None;
        match result {
            Ok(instance) => {
                attempt.ready = Some(instance);
                drop(state);
                self.apply(&meta.name, Event::Started { ticket });
            }
            Err(error) => {
                drop(state);
                let lasting = !matches!(error, LoadError::Seal { .. } | LoadError::Occupied(_));
                self.fail(ticket, meta, error.to_string(), lasting);
            }
        }
    }
}
