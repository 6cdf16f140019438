//! `hotmerge pin` and `hotmerge unpin`: whether the directory decides what runs.

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{PluginParams, PluginReport, method},
};

use super::{Change, reload};
use crate::exit::Failure;

/// Keep the running version, whatever the plugin directory contains.
///
/// Lasts until `hotmerge unpin`, even across restarts of the host.
#[derive(Args, Debug)]
pub(super) struct Pin {
    #[command(flatten)]
    wish: Wish,
}

/// Let the plugin directory decide again which version runs.
#[derive(Args, Debug)]
pub(super) struct Unpin {
    #[command(flatten)]
    wish: Wish,
}

#[derive(Args, Debug)]
struct Wish {
    /// Plugin name
    #[arg(value_name = "PLUGIN")]
    plugin: PluginName,
    #[command(flatten)]
    change: Change,
}

impl Pin {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.wish.ask(method::PIN)
    }
}

impl Unpin {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.wish.ask(method::UNPIN)
    }
}

impl Wish {
    fn ask(self, method: &str) -> Result<(), Failure> {
        let params = PluginParams {
            plugin: self.plugin,
        };
        let report: PluginReport = self.change.ask(method, &params)?;
        reload::conclude(report, self.change.json)
    }
}
