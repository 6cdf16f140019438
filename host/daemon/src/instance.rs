//! A started plugin, wherever it lives. The life cycle knows nothing else of it.

use std::{
    fmt,
    fs::File,
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use hotmerge_abi::{CallContext, level};
use hotmerge_loader::{
    self as loader, HostServices, LoadError, LogRecord, OutgoingCall, Remains, Reply, Unloaded,
    Verified,
};
use hotmerge_meta::{PluginMeta, PluginName};

use crate::{
    cancel::Cancel,
    cell::{Cell, Cells, Isolation, Owner},
    failure::Failure,
    health::Reporter,
    hosted::Hosted,
    last_state::LastState,
    lifecycle::Ticket,
    plugin::{CallError, Plugin, context},
    supervisor::Supervisor,
    symbols::{self, Symbols},
    wants::not_granted,
};

/// A started plugin.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are few, and a box would cost every call a load"
)]
pub(crate) enum Instance {
    /// In the host's own process.
    Host(Hosted),
    /// In a sandboxed process of its own.
    Worker(Owner),
}

/// What is left of an instance after its end, still to be given back to the system.
pub(crate) enum Ended {
    Host(Remains),
    Worker,
}

impl Instance {
    /// Loads and starts verified bytes, and asks the instance to check itself.
    pub(crate) fn start(
        services: Services,
        verified: Verified,
        config: &str,
        cells: &Arc<Cells>,
    ) -> Result<Self, LoadError> {
        let plugin = services.meta.name.clone();
        let isolation = cells
            .isolation(plugin.as_str())
            .map_err(LoadError::Refused)?;
        let grants = cells.config.grants(&plugin);
        let asked = not_granted(&services.meta.wants, grants, isolation);
        let in_vain = (!asked.is_empty()).then(|| {
            let asked = asked.join("`, `");
            format!("it asks for `{asked}`, which the configuration does not grant")
        });
        if let Some(in_vain) = &in_vain {
            tracing::warn!(%plugin, "{in_vain}");
        }
        let is_judged = cells.config.symbols == Symbols::Enforce;
        let mut libraries = Vec::new();
        if is_judged || isolation == Isolation::Process {
            let file = symbols::read(&verified);
            if is_judged {
                let groups = cells.symbols.as_ref();
                let groups = groups.map_err(|error| LoadError::Refused(error.to_string()))?;
                let judged = file.as_ref().map_err(String::clone);
                let judged =
                    judged.and_then(|file| symbols::check(file, groups, isolation, grants));
                judged.map_err(|reason| {
                    let in_vain = in_vain.map(|text| format!("; {text}")).unwrap_or_default();
                    LoadError::Refused(format!("{reason}{in_vain}"))
                })?;
            }
            if isolation == Isolation::Process {
                symbols::runs_nothing(file.as_ref()).map_err(LoadError::Refused)?;
            }
            let needed = file.iter().flat_map(|file| file.runtime_libraries());
            libraries.extend(needed.map(str::to_owned));
        }
        if isolation == Isolation::Process {
            return Owner::start(cells, services, verified, libraries, config).map(Self::Worker);
        }
        Hosted::start(services, verified, config).map(Self::Host)
    }

    #[inline]
    pub(crate) fn call(
        &self,
        context: &CallContext,
        method: &str,
        request: &[u8],
        reply: &mut Reply,
        cancel: Option<&Cancel>,
    ) -> Result<(), Box<loader::CallError>> {
        match self {
            Self::Host(_) if cancel.is_some_and(Cancel::is_cancelled) => {
                Err(Box::new(loader::CallError::Cancelled))
            }
            Self::Host(instance) => instance.call(context, method, request, reply),
            Self::Worker(cell) => cell.call(context, method, request, reply, cancel),
        }
    }

    /// Asks for the state that the next instance takes over. After a crash it is the last one that
    /// was saved before. Returns the version that saved it.
    pub(crate) fn save(&self, state: &mut Reply) -> Result<String, Box<loader::CallError>> {
        match self {
            Self::Host(instance) => instance.save(state),
            Self::Worker(cell) => cell.save(state),
        }
    }

    /// Hands over the state that version `from` saved.
    pub(crate) fn restore(&self, from: &str, state: &[u8]) -> Result<(), Box<loader::CallError>> {
        match self {
            Self::Host(instance) => instance.restore(from, state),
            Self::Worker(cell) => cell.restore(from, state),
        }
    }

    /// Saves the state for the case of a crash.
    pub(crate) fn refresh(&self) -> Result<(), Box<loader::CallError>> {
        match self {
            Self::Host(instance) => instance.refresh(),
            Self::Worker(cell) => cell.refresh(),
        }
    }

    /// The last state that was saved.
    pub(crate) fn last_state(&self) -> &LastState {
        match self {
            Self::Host(instance) => &instance.state,
            Self::Worker(cell) => &cell.last_state,
        }
    }

    /// A call of it panicked.
    #[cold]
    pub(crate) fn caught(&self, failure: Failure) {
        match self {
            Self::Host(instance) => instance.caught(failure),
            // Its worker has told.
            Self::Worker(_) => {}
        }
    }

    /// Whether it crashed and only goes on until another takes its place.
    pub(crate) fn is_failing(&self) -> bool {
        match self {
            Self::Host(instance) => instance.has_panicked(),
            Self::Worker(cell) => cell.is_given_up(),
        }
    }

    /// The verified bytes that it runs, as a file to read from offset 0.
    pub(crate) fn image(&self) -> io::Result<File> {
        match self {
            Self::Host(instance) => instance.image(),
            Self::Worker(cell) => cell.image(),
        }
    }

    /// Lets the plugin end its work, then frees it. Blocks for as long as the plugin takes.
    pub(crate) fn end(self, limit: Duration) -> (Result<(), Box<loader::CallError>>, Ended) {
        match self {
            Self::Host(instance) => {
                let (farewell, remains) = instance.end(limit);
                (farewell, Ended::Host(remains))
            }
            Self::Worker(cell) => (cell.end(limit), Ended::Worker),
        }
    }

    /// Where the plugin's table lies in the host's memory, if it does.
    pub(crate) fn address(&self) -> Option<usize> {
        match self {
            Self::Host(instance) => Some(instance.address()),
            Self::Worker(_) => None,
        }
    }

    /// The plugin in the host's own process, if it lives there.
    pub(crate) fn hosted(&self) -> Option<&Hosted> {
        match self {
            Self::Host(instance) => Some(instance),
            Self::Worker(_) => None,
        }
    }

    /// The cell that the plugin lives in, if it does.
    pub(crate) fn cell(&self) -> Option<&Cell> {
        match self {
            Self::Host(_) => None,
            Self::Worker(cell) => Some(cell),
        }
    }

    /// How the plugin is kept apart from the host, as users write it.
    pub(crate) fn isolation(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Worker(_) => "process",
        }
    }
}

impl Ended {
    /// Gives the memory back, after the threads that ran the plugin's last code have ended.
    pub(crate) fn release(self) -> Unloaded {
        match self {
            Self::Host(remains) => remains.unload(),
            // Its memory went with its process.
            Self::Worker => Unloaded::Clean,
        }
    }
}

/// Carries the log records of a plugin in a worker into the host's log.
#[derive(Debug)]
pub(crate) struct PluginLog(pub(crate) PluginName);

impl PluginLog {
    /// Whose records these are.
    pub(crate) fn plugin(&self) -> &PluginName {
        &self.0
    }

    pub(crate) fn log(&self, record: LogRecord<'_>) {
        log(self.0.as_str(), record);
    }
}

/// What the host does for one version of a plugin: carries its log records into the host's
/// log, and its calls to the plugins that it requires.
pub(crate) struct Services {
    meta: Arc<PluginMeta>,
    host: Weak<Supervisor>,
    reporter: Reporter,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("reporter", &self.reporter)
            .finish_non_exhaustive()
    }
}

impl Services {
    pub(crate) fn new(meta: &Arc<PluginMeta>, ticket: Ticket, host: Weak<Supervisor>) -> Self {
        Self {
            meta: Arc::clone(meta),
            reporter: Reporter::new(meta.name.clone(), ticket, Weak::clone(&host)),
            host,
        }
    }

    /// By whom the instance tells of itself.
    pub(crate) fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// Which version it is.
    pub(crate) fn meta(&self) -> &Arc<PluginMeta> {
        &self.meta
    }

    fn find(&self, plugin: &str) -> Result<Arc<Plugin>, String> {
        // What it does not require may be replaced, end or wait for it at any time.
        if !self.meta.requires.iter().any(|it| it.name == *plugin) {
            return Err(format!(
                "`{}` may not call `{plugin}`: its plugin.meta does not require it",
                self.meta.name
            ));
        }
        self.host
            .upgrade()
            .and_then(|host| host.plugin(plugin))
            .ok_or_else(|| CallError::NotLoaded(plugin.to_owned()).to_string())
    }
}

impl Services {
    /// Carries a call that ends when `cancel` says so.
    pub(crate) fn call_until(
        &self,
        cancel: &Cancel,
        call: OutgoingCall<'_>,
        reply: &mut Reply,
    ) -> Result<(), loader::CallError> {
        self.carry(call, reply, Some(cancel))
    }

    fn carry(
        &self,
        call: OutgoingCall<'_>,
        reply: &mut Reply,
        cancel: Option<&Cancel>,
    ) -> Result<(), loader::CallError> {
        let plugin = self
            .find(call.plugin)
            .map_err(loader::CallError::NoPlugin)?;
        let mut own = context(None);
        if let Some(context) = call.context {
            own.deadline_ns = context.deadline_ns;
            own.trace_id = context.trace_id;
            own.trace_flags = context.trace_flags;
        }
        match plugin.call_as(&own, call.method, call.request, reply, cancel, |_| ()) {
            Ok(()) => Ok(()),
            Err(CallError::Plugin(error)) => Err(error),
            Err(error) => Err(loader::CallError::NoPlugin(error.to_string())),
        }
    }
}

impl HostServices for Services {
    fn call(&self, call: OutgoingCall<'_>, reply: &mut Reply) -> Result<(), loader::CallError> {
        self.carry(call, reply, None)
    }

    fn log(&self, record: LogRecord<'_>) {
        log(self.meta.name.as_str(), record);
    }
}

/// Writes a plugin's record into the host's log.
fn log(plugin: &str, record: LogRecord<'_>) {
    let trace = record.call.map(|call| hex(&call.trace_id));
    let span = record.call.map(|call| hex(&call.span_id));
    macro_rules! emit {
        ($level:expr) => {
            tracing::event!(
                target: "plugin",
                $level,
                plugin,
                trace_id = trace.as_deref(),
                span_id = span.as_deref(),
                "{}",
                record.message
            )
        };
    }
    match record.level {
        level::ERROR => emit!(tracing::Level::ERROR),
        level::WARN => emit!(tracing::Level::WARN),
        level::INFO => emit!(tracing::Level::INFO),
        level::DEBUG => emit!(tracing::Level::DEBUG),
        _ => emit!(tracing::Level::TRACE),
    }
}

/// An id of a call as logs show it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
