//! A host whose one plugin stops where its test wants it to.

use std::thread::JoinHandle;

use hotmerge_meta::control::PluginReport;

use crate::{
    Gate, Lab, TestHost, Variant, actor,
    host::{position, reload_since},
};

/// A host with the fixture `actor`, which can visit a gate.
#[derive(Debug)]
pub struct GatedHost {
    /// Its world.
    pub lab: Lab,
    /// Where the plugin stops.
    pub gate: Gate,
    /// The host itself.
    pub host: TestHost,
}

impl GatedHost {
    /// Starts one with further lines of configuration; the script is the plugin's.
    #[track_caller]
    pub fn new(script: &str, config: &str) -> Self {
        Self::with(&actor(script), config)
    }

    /// As [`GatedHost::new`], with an actor that is not as its script alone makes it.
    #[track_caller]
    pub fn with(actor: &Variant, config: &str) -> Self {
        let lab = Lab::new();
        let gate = Gate::new(&lab);
        lab.package("one").put(&[actor]);
        let host = lab.start_with(&format!("{config}\n{}", gate.config("actor")));
        Self { lab, gate, host }
    }

    /// Puts another version in place, and does not notify the host.
    pub fn stage(&self, actor: &Variant) {
        self.lab.package("one").put(&[actor]);
    }

    /// Puts another version in place, and returns what the host did with it.
    #[track_caller]
    pub fn put(&self, script: &str) -> PluginReport {
        let report = self.host.reload_after(|| self.stage(&actor(script)));
        only(report.plugins)
    }

    /// As [`GatedHost::put`]: the version is in place when this returns, and the host may not have
    /// done anything with it before a visitor of the gate is let go.
    #[track_caller]
    pub fn put_in_background(&self, actor: &Variant) -> JoinHandle<PluginReport> {
        let since = position(&mut self.host.client());
        self.stage(actor);
        self.host
            .in_background(move |client| only(reload_since(client, since).plugins))
    }
}

#[track_caller]
fn only(mut reports: Vec<PluginReport>) -> PluginReport {
    assert_eq!(reports.len(), 1, "not one plugin: {reports:#?}");
    reports.remove(0)
}
