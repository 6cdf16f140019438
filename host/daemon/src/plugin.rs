//! A plugin as its callers hold it: the same handle for every version that comes and goes.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use hotmerge_abi::CallContext;
use hotmerge_loader::{self as loader, Reply};
use hotmerge_meta::{Digest, PluginName};
use hotmerge_swap::Cell;
use rustix::time::{ClockId, clock_gettime};

use crate::{instance::Instance, lifecycle::Ticket};

/// A version that can take calls.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) instance: Instance,
    pub(crate) ticket: Ticket,
    pub(crate) generation: u64,
    pub(crate) hash: Digest,
}

/// A plugin of a running host. Cheap to call from any thread, as often as wanted; a call
/// runs from its first to its last instruction on one version.
pub struct Plugin {
    name: PluginName,
    pub(crate) live: Cell<Version>,
    pub(crate) failed: AtomicU64,
    pub(crate) panicked: AtomicU64,
    pub(crate) retained: AtomicU64,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Which version answered a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Counts the versions that went live, from 1.
    pub generation: u64,
}

/// Why a call brought no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No version of the plugin takes calls.
    #[error("no version of plugin `{0}` is loaded; see `hotmerge status`")]
    NotLoaded(String),
    /// Plugins have called each other too often on this thread.
    #[error("calls are nested too deeply")]
    TooDeep,
    /// The plugin answered with an error.
    #[error(transparent)]
    Plugin(#[from] loader::CallError),
}

impl Plugin {
    pub(crate) fn new(name: PluginName) -> Self {
        Self {
            name,
            live: Cell::new(),
            failed: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            retained: AtomicU64::new(0),
        }
    }

    /// The plugin's name.
    pub fn name(&self) -> &PluginName {
        &self.name
    }

    /// Calls a method and says which version answered. `reply` belongs to the caller.
    ///
    /// # Errors
    /// Why there is no reply; never because of a reload.
    #[inline]
    pub fn call(
        &self,
        context: &CallContext,
        method: &str,
        request: &[u8],
        reply: &mut Reply,
    ) -> Result<Answered, CallError> {
        self.call_as(context, method, request, reply, |version| Answered {
            generation: version.generation,
        })
    }

    /// Calls a method and asks the version that answered for something about it.
    #[inline]
    pub(crate) fn call_as<R>(
        &self,
        context: &CallContext,
        method: &str,
        request: &[u8],
        reply: &mut Reply,
        ask: impl FnOnce(&Version) -> R,
    ) -> Result<R, CallError> {
        // Errors are boxed until the call is over: a small result stays in registers, a large
        // one goes through memory in pieces and stalls every call.
        let outcome = self.live.with(|live| match live {
            Some(version) => match version.instance.call(context, method, request, reply) {
                Ok(()) => Ok(ask(version)),
                Err(error) => Err(self.failed(*error)),
            },
            None => Err(self.not_loaded()),
        });
        match outcome {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(*error),
            Err(_) => Err(CallError::TooDeep),
        }
    }

    #[cold]
    fn not_loaded(&self) -> Box<CallError> {
        self.failed.fetch_add(1, Ordering::Relaxed);
        Box::new(CallError::NotLoaded(self.name.to_string()))
    }

    #[cold]
    fn failed(&self, error: loader::CallError) -> Box<CallError> {
        if let loader::CallError::Panicked(what) = &error {
            self.panicked.fetch_add(1, Ordering::Relaxed);
            tracing::error!(plugin = %self.name, "{what}");
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        Box::new(CallError::Plugin(error))
    }
}

/// The context of a call that comes from nowhere: a new trace, and a deadline if the caller
/// has one.
pub fn context(deadline: Option<Duration>) -> CallContext {
    let mut context = CallContext {
        size: size_of::<CallContext>() as u32,
        trace_flags: 1,
        ..CallContext::default()
    };
    context.trace_id[..8].copy_from_slice(&fastrand::u64(1..).to_be_bytes());
    context.trace_id[8..].copy_from_slice(&fastrand::u64(..).to_be_bytes());
    context.span_id = fastrand::u64(1..).to_be_bytes();
    if let Some(deadline) = deadline {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(
            now.tv_sec.unsigned_abs(),
            u32::try_from(now.tv_nsec).unwrap_or(0),
        );
        context.deadline_ns = u64::try_from((now + deadline).as_nanos()).unwrap_or(u64::MAX);
    }
    context
}
