//! The host's services for one version of a plugin: takes its reports, and forwards its log
//! records and its calls to the plugins that it requires.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use hotmerge_instance::{Call, Cancel, Report, Upward, context, log};
use hotmerge_lifecycle::{Event, Ticket};
use hotmerge_loader::{self as loader, HostServices, LogRecord, OutgoingCall, Reply};
use hotmerge_meta::{PluginMeta, PluginName};

use crate::{
    plugin::{CallError, Plugin},
    record::events::PluginEvent,
    supervise::supervisor::Supervisor,
};

/// Why a plugin must not call another.
#[derive(Debug, thiserror::Error)]
enum NotCallable {
    /// A plugin that is not required may be replaced, end or wait for the caller at any time.
    #[error("`{caller}` may not call `{plugin}`: its plugin.meta does not require it")]
    NotRequired { caller: PluginName, plugin: String },
    #[error(transparent)]
    NotLoaded(CallError),
}

/// The host as one version of a plugin sees it. It does nothing once the host is gone.
pub(crate) struct Services {
    meta: Arc<PluginMeta>,
    ticket: Ticket,
    /// 0 before it takes calls.
    generation: Arc<AtomicU64>,
    host: Weak<Supervisor>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("plugin", &self.meta.name)
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

impl Services {
    pub(crate) fn new(
        meta: &Arc<PluginMeta>,
        ticket: Ticket,
        generation: Arc<AtomicU64>,
        host: Weak<Supervisor>,
    ) -> Self {
        Self {
            meta: Arc::clone(meta),
            ticket,
            generation,
            host,
        }
    }

    fn find(&self, plugin: &str) -> Result<Arc<Plugin>, NotCallable> {
        if !self.meta.requires.iter().any(|it| it.name == *plugin) {
            return Err(NotCallable::NotRequired {
                caller: self.meta.name.clone(),
                plugin: plugin.to_owned(),
            });
        }
        self.host
            .upgrade()
            .and_then(|host| host.plugin(plugin))
            .ok_or_else(|| NotCallable::NotLoaded(CallError::NotLoaded(plugin.to_owned())))
    }
}

impl Services {
    fn forward(
        &self,
        call: OutgoingCall<'_>,
        reply: &mut Reply,
        cancel: Option<&Cancel>,
    ) -> Result<(), loader::CallError> {
        let plugin = self
            .find(call.plugin)
            .map_err(|error| loader::CallError::NoPlugin(error.to_string()))?;
        let mut own = context(None);
        if let Some(context) = call.context {
            own.deadline_ns = context.deadline_ns;
            own.trace_id = context.trace_id;
            own.trace_flags = context.trace_flags;
        }
        let mut call = Call::new(&own, call.method, call.request).with_media(call.media);
        call.cancel = cancel;
        match plugin.call(&call, reply) {
            Ok(_) => Ok(()),
            Err(CallError::Plugin(error)) => Err(error),
            Err(error) => Err(loader::CallError::NoPlugin(error.to_string())),
        }
    }
}

impl HostServices for Services {
    fn call(&self, call: OutgoingCall<'_>, reply: &mut Reply) -> Result<(), loader::CallError> {
        self.forward(call, reply, None)
    }

    fn log(&self, record: LogRecord<'_>) {
        let generation = self.generation.load(Ordering::Relaxed);
        log::record(&self.meta, generation, record);
    }
}

impl Upward for Services {
    fn call_until(
        &self,
        cancel: &Cancel,
        call: OutgoingCall<'_>,
        reply: &mut Reply,
    ) -> Result<(), loader::CallError> {
        self.forward(call, reply, Some(cancel))
    }

    fn report(&self, report: Report) {
        let (Some(host), ticket, plugin) = (self.host.upgrade(), self.ticket, &self.meta.name)
        else {
            return;
        };
        let tell = |event| host.state().happened(plugin, event);
        match report {
            Report::Crashed { failure, state_age } => {
                host.record_failure(plugin, ticket, &failure, state_age);
            }
            Report::Panicked { failure, state_age } => {
                host.replace_after_panic(plugin, ticket, failure, state_age);
            }
            Report::PanickedAgain { failure } => tell(PluginEvent::PanickedAgain(failure)),
            Report::NotRestartedYet { what } => tell(PluginEvent::NotRestartedYet { what }),
            Report::DiedWhileReplaced { failure } => {
                tell(PluginEvent::DiedWhileReplaced(failure));
            }
            Report::NotGranted { what } => tell(PluginEvent::NotGranted { what }),
            Report::MemoryUnwatched { reason } => tell(PluginEvent::MemoryUnwatched { reason }),
            Report::ReplyDropped { times, most_bytes } => {
                tell(PluginEvent::ReplyDropped { times, most_bytes });
            }
            Report::EndedEarly { reason } => tell(PluginEvent::EndedEarly { reason }),
            Report::WatcherPanicked => tell(PluginEvent::WatcherPanicked),
            Report::Restarted { state_age } => host.recovered(plugin, ticket, state_age),
            Report::GivenUp { reason } => host.given_up(plugin, ticket, reason),
            Report::Revived => host.apply(plugin, Event::Revived { ticket }),
            Report::FirstCallSinceSave => host.save_later(plugin, ticket),
        }
    }
}
