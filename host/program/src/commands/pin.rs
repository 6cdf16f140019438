//! `hotmerge pin` and `hotmerge unpin`: whether the directory decides what runs.

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{PluginParams, PluginReport, method},
};

use super::{
    host::Change,
    reload::{self, Wish},
};
use crate::exit::Failure;

/// Keep the running version, whatever the plugin directory contains.
///
/// Lasts until `hotmerge unpin`, even across restarts of the host.
#[derive(Args, Debug)]
pub(super) struct Pin {
    #[command(flatten)]
    about: About,
}

/// Let the plugin directory decide again which version runs.
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
    pub(super) fn run(self) -> Result<(), Failure> {
        self.about.ask(method::PIN, Wish::Pin)
    }
}

impl Unpin {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.about.ask(method::UNPIN, Wish::Unpin)
    }
}

impl About {
    fn ask(self, method: &str, wish: Wish) -> Result<(), Failure> {
        let params = PluginParams {
            plugin: self.plugin,
        };
        let report: PluginReport = self.change.ask(method, &params)?;
        reload::conclude(report, wish, self.change.json)
    }
}
