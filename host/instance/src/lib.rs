//! A started plugin, wherever it runs: in the host's own process or in a sandboxed worker. The life
//! cycle depends on nothing else of it.
//!
//! An instance talks to its host through one trait, [`Upward`]; everything else it needs is
//! handed to it as data ([`Settings`]).
//!
//! Absent on purpose: which version runs, and when. The life cycle decides that.

#![forbid(unsafe_code)]

mod call;
mod cancel;
mod checkpoint;
pub mod failure;
mod in_process;
pub mod log;
pub mod rules;
pub mod settings;
pub mod spawn;
mod upward;
mod worker;

use std::{fs::File, io, sync::Arc, time::Duration};

use hotmerge_loader::{self as loader, LoadError, Remains, Reply, Unloaded, Verified};
use hotmerge_meta::PluginMeta;

pub use crate::{
    call::{Call, context},
    cancel::Cancel,
    checkpoint::{Checkpoint, STATE_LIMIT},
    failure::Failure,
    in_process::InProcess,
    settings::{Isolation, Settings, StartWith},
    upward::{Report, Upward},
    worker::{
        IsolationError, LaunchError, NoWorkers, Restarts, Verdict, Worker, WorkerOwner, Workers,
        too_often,
    },
};
use crate::{
    rules::admission::{admit, ungranted},
    settings::Symbols,
};

/// A started plugin.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are few, and a box would cost every call a load"
)]
pub enum Instance {
    /// In the host's own process.
    Host(InProcess),
    /// In a sandboxed process of its own.
    Worker(WorkerOwner),
}

/// The rest of an instance after its end, whose memory is still to be freed.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one per end, and it is moved once"
)]
pub enum Ended {
    /// An object that is still mapped.
    Host(Remains),
    /// Nothing.
    Worker,
}

impl Instance {
    /// Loads and starts verified bytes, and asks the instance to check itself.
    ///
    /// # Errors
    /// Why it cannot be isolated as configured, or did not start.
    pub fn start(
        workers: &Arc<Workers>,
        upward: Arc<dyn Upward>,
        meta: &Arc<PluginMeta>,
        verified: Verified,
        with: &StartWith<'_>,
    ) -> Result<Self, LoadError> {
        let plugin = &meta.name;
        let isolation = workers
            .isolation_by(with.settings, plugin.as_str())
            .map_err(|error| LoadError::Refused(error.to_string()))?;
        let own = with.settings.of(plugin.as_str());
        if let Some(what) = ungranted(meta, own, isolation) {
            upward.report(Report::NotGranted { what });
        }
        let policy = match with.settings.symbols {
            Symbols::Enforce => Some(workers.symbols.as_ref()),
            Symbols::Off => None,
        };
        let refused = |error: &dyn std::error::Error| LoadError::Refused(error.to_string());
        let policy = policy.transpose().map_err(|error| refused(error))?;
        let admitted = admit(meta, &verified, own, isolation, policy);
        let libraries = admitted.map_err(|error| refused(&error))?;
        if isolation == Isolation::Process {
            return WorkerOwner::start(workers, upward, meta, verified, libraries, with)
                .map(Self::Worker);
        }
        InProcess::start(upward, meta, verified, with.config).map(Self::Host)
    }

    /// Calls a method. `reply` belongs to the caller.
    ///
    /// # Errors
    /// What the plugin answered instead of a reply, or what became of its worker.
    #[inline]
    pub fn call(&self, call: &Call<'_>, reply: &mut Reply) -> Result<(), Box<loader::CallError>> {
        match self {
            Self::Host(_) if call.cancel.is_some_and(Cancel::is_cancelled) => {
                Err(Box::new(loader::CallError::Cancelled))
            }
            Self::Host(instance) => instance.call(call, reply),
            Self::Worker(worker) => worker.call(call, reply),
        }
    }

    /// Asks for the state that the next instance takes over. After a crash it is the last one that
    /// was saved before. Returns the version that saved it.
    pub fn save(&self, state: &mut Reply) -> Result<String, Box<loader::CallError>> {
        match self {
            Self::Host(instance) => instance.save(state),
            Self::Worker(worker) => worker.save(state),
        }
    }

    /// Hands over the state that version `from` saved. `break_off` ends the waiting for a worker.
    pub fn restore(
        &self,
        from: &str,
        state: &[u8],
        break_off: &Cancel,
    ) -> Result<(), Box<loader::CallError>> {
        match self {
            Self::Host(instance) => instance.restore(from, state),
            Self::Worker(worker) => worker.restore(from, state, break_off),
        }
    }

    /// Saves the state for the case of a crash.
    pub fn refresh(&self) -> Result<(), Box<loader::CallError>> {
        match self {
            Self::Host(instance) => instance.refresh(),
            Self::Worker(worker) => worker.refresh(),
        }
    }

    /// The last state that was saved.
    pub fn checkpoint(&self) -> &Checkpoint {
        match self {
            Self::Host(instance) => &instance.checkpoint,
            Self::Worker(worker) => &worker.checkpoint,
        }
    }

    /// A call of it panicked.
    #[cold]
    pub fn caught(&self, failure: Failure) {
        match self {
            Self::Host(instance) => instance.caught(failure),
            // Its worker has told.
            Self::Worker(_) => {}
        }
    }

    /// Whether it crashed and runs only until another replaces it.
    pub fn is_failing(&self) -> bool {
        match self {
            Self::Host(instance) => instance.has_panicked(),
            Self::Worker(worker) => worker.is_given_up(),
        }
    }

    /// The verified bytes that it runs, as a file to read from offset 0.
    pub fn image(&self) -> io::Result<File> {
        match self {
            Self::Host(instance) => instance.image(),
            Self::Worker(worker) => worker.image(),
        }
    }

    /// Lets the plugin end its work, then frees it. Blocks for as long as the plugin takes.
    pub fn end(self, limit: Duration) -> (Result<(), Box<loader::CallError>>, Ended) {
        match self {
            Self::Host(instance) => {
                let (farewell, remains) = instance.end(limit);
                (farewell, Ended::Host(remains))
            }
            Self::Worker(worker) => (worker.end(limit), Ended::Worker),
        }
    }

    /// Where the plugin's table lies in the host's memory, if it does.
    pub fn address(&self) -> Option<usize> {
        match self {
            Self::Host(instance) => Some(instance.address()),
            Self::Worker(_) => None,
        }
    }

    /// The plugin in the host's own process, if it lives there.
    pub fn in_process(&self) -> Option<&InProcess> {
        match self {
            Self::Host(instance) => Some(instance),
            Self::Worker(_) => None,
        }
    }

    /// The plugin in a worker, if it lives there.
    pub fn worker(&self) -> Option<&Arc<Worker>> {
        match self {
            Self::Host(_) => None,
            Self::Worker(worker) => Some(worker),
        }
    }

    /// How the plugin is kept apart from the host, as users write it.
    pub fn isolation(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Worker(_) => "process",
        }
    }
}

impl Ended {
    /// Frees the memory, after the threads that ran the plugin's last code have ended.
    pub fn release(self) -> Unloaded {
        match self {
            Self::Host(remains) => remains.unload(),
            // Its memory went with its process.
            Self::Worker => Unloaded::Clean,
        }
    }
}
