//! `hotmerge pin` and `hotmerge unpin`: whether the directory decides what runs.

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{PluginParams, PluginReport, method},
};

use super::{
    host::Change,
    reload::{self, Override},
};
use crate::exit::CommandError;

/// Keep the running version, whatever the plugin directory contains.
///
/// Lasts until `hotmerge unpin`, even across restarts of the host.
#[derive(Args, Debug)]
pub(super) struct Pin {
    #[command(flatten)]
    about: About,
}

/// Let the plugin directory decide again which version runs.
///
/// Its version is a candidate like any other: with `canary` it first takes a share of the calls.
#[derive(Args, Debug)]
pub(super) struct Unpin {
    #[command(flatten)]
    about: About,
}

#[derive(Args, Debug)]
struct About {
    /// Plugin name
    #[arg(value_name = "PLUGIN")]
    plugin: PluginName,
    #[command(flatten)]
    change: Change,
}

impl Pin {
    pub(super) fn run(self) -> Result<(), CommandError> {
        self.about.ask(method::PIN, Override::Pin)
    }
}

impl Unpin {
    pub(super) fn run(self) -> Result<(), CommandError> {
        self.about.ask(method::UNPIN, Override::Unpin)
    }
}

impl About {
    fn ask(self, method: &str, change: Override) -> Result<(), CommandError> {
        let params = PluginParams {
            plugin: self.plugin,
        };
        let report: PluginReport = self.change.ask(method, &params)?;
        reload::conclude(report, change, self.change.json)
    }
}
