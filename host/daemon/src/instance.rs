//! A started plugin, wherever it lives. The life cycle knows nothing else of it.

use std::{sync::Arc, time::Duration};

use hotmerge_abi::{CallContext, level};
use hotmerge_loader::{
    self as loader, HostServices, LoadError, LogRecord, Remains, Reply, Unloaded, Verified,
};
use hotmerge_meta::PluginName;

/// A started plugin.
#[derive(Debug)]
pub(crate) enum Instance {
    /// In the host's own process.
    Host(loader::Instance),
}

/// What is left of an instance after its end, still to be given back to the system.
pub(crate) enum Ended {
    Host(Remains),
}

impl Instance {
    /// Loads and starts verified bytes, and asks the instance to check itself.
    pub(crate) fn start(
        plugin: &PluginName,
        verified: Verified,
        config: &str,
    ) -> Result<Self, LoadError> {
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
        }
    }

    /// Lets the plugin end its work, then frees it. Blocks for as long as the plugin takes.
    pub(crate) fn end(self, limit: Duration) -> (Result<(), Box<loader::CallError>>, Ended) {
        match self {
            Self::Host(instance) => {
                let farewell = instance.teardown(limit);
                (farewell, Ended::Host(instance.destroy()))
            }
        }
    }

    pub(crate) fn address(&self) -> usize {
        match self {
            Self::Host(instance) => instance.address(),
        }
    }

    /// How the plugin is kept apart from the host, as users write it.
    pub(crate) fn isolation(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
        }
    }
}

impl Ended {
    /// Gives the memory back, after the threads that ran the plugin's last code have ended.
    pub(crate) fn release(self) -> Unloaded {
        match self {
            Self::Host(remains) => remains.unload(),
        }
    }
}

/// Carries a plugin's log records into the host's log.
struct PluginLog(PluginName);

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
