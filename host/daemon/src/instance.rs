//! A started plugin, wherever it lives. The life cycle knows nothing else of it.

use std::{sync::Arc, time::Duration};

use hotmerge_abi::{CallContext, level};
use hotmerge_loader::{
    self as loader, HostServices, LoadError, LogRecord, Remains, Reply, Unloaded, Verified,
};
use hotmerge_meta::PluginName;

use crate::{
    cell::{Cell, Cells, Isolation, Owner},
    symbols::{self, Symbols},
};

/// A started plugin.
#[derive(Debug)]
pub(crate) enum Instance {
    /// In the host's own process.
    Host(loader::Instance),
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
        plugin: &PluginName,
        verified: Verified,
        config: &str,
        cells: &Arc<Cells>,
    ) -> Result<Self, LoadError> {
        let isolation = cells
            .isolation(plugin.as_str())
            .map_err(LoadError::Refused)?;
        if cells.config.symbols == Symbols::Enforce {
            let settings = cells.config.plugin.get(plugin);
            let grants = settings.map_or(&[][..], |settings| &settings.allow);
            symbols::check(verified.memory(), verified.bytes(), isolation, grants)
                .map_err(LoadError::Refused)?;
        }
        if isolation == Isolation::Process {
            return Cell::start(cells, plugin, verified, config).map(Self::Worker);
        }
        let services = Arc::new(PluginLog(plugin.clone()));
        let instance = loader::Instance::start(verified, config, services)?;
        match instance.self_check() {
            Ok(()) => Ok(Self::Host(instance)),
            Err(error) => {
                instance.destroy().unload();
                Err(LoadError::Refused(format!("self-check failed: {error}")))
            }
        }
    }

    #[inline]
    pub(crate) fn call(
        &self,
        context: &CallContext,
        method: &str,
        request: &[u8],
        reply: &mut Reply,
    ) -> Result<(), Box<loader::CallError>> {
        match self {
            Self::Host(instance) => instance.call(context, method, request, reply),
            Self::Worker(cell) => cell.call(context, method, request, reply),
        }
    }

    /// Lets the plugin end its work, then frees it. Blocks for as long as the plugin takes.
    pub(crate) fn end(self, limit: Duration) -> (Result<(), Box<loader::CallError>>, Ended) {
        match self {
            Self::Host(instance) => {
                let farewell = instance.teardown(limit);
                (farewell, Ended::Host(instance.destroy()))
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

/// Carries a plugin's log records into the host's log.
#[derive(Debug)]
pub(crate) struct PluginLog(pub(crate) PluginName);

impl PluginLog {
    /// Whose records these are.
    pub(crate) fn plugin(&self) -> &PluginName {
        &self.0
    }
}

impl HostServices for PluginLog {
    fn log(&self, record: LogRecord<'_>) {
        let plugin = self.0.as_str();
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
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
