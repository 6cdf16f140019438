//! The host's counts and measurements that its status does not have.

use std::sync::PoisonError;

use hotmerge_meta::figures::{Figures, PluginFigures};

use super::Host;

impl Host {
    /// Counts and measurements since the host's start. The number of figures depends on the
    /// plugins in the directory, never on what callers send.
    pub fn figures(&self) -> Figures {
        let plugins: Vec<_> = {
            let plugins = self.supervisor.plugins.read();
            let plugins = plugins.unwrap_or_else(PoisonError::into_inner);
            plugins.values().cloned().collect()
        };
        let state = self.supervisor.state();
        let crashes = |name: &str| state.health.get(name).map_or(0, |it| it.crashes);
        let plugins = plugins.iter().map(|plugin| PluginFigures {
            plugin: plugin.name().clone(),
            calls: plugin.calls.ended(),
            in_flight: plugin.calls.in_flight(),
            latency: plugin.calls.latency(),
            crashes: crashes(plugin.name().as_str()),
        });
        Figures {
            started: self.started.as_millisecond() as f64 / 1e3,
            plugins: plugins.collect(),
            changes: state.measured.changes(),
            change: state.measured.change.distribution(),
            pause: state.measured.pause.distribution(),
            drain: state.measured.drain.distribution(),
        }
    }
}
