//! `hotmerge pin` and `hotmerge unpin`: whether the directory decides what runs.

use std::time::Duration;

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{PluginParams, PluginReport, method},
};

use super::{HostArguments, reload};
use crate::exit::Failure;

/// Keep the version that runs, whatever the plugin directory says.
///
/// Until `hotmerge unpin`, also after a restart of the host.
#[derive(Args, Debug)]
pub(super) struct Pin {
    #[command(flatten)]
    wish: Wish,
}

/// Let the plugin directory decide again what runs.
#[derive(Args, Debug)]
pub(super) struct Unpin {
    #[command(flatten)]
    wish: Wish,
}

#[derive(Args, Debug)]
struct Wish {
    /// Which plugin
    #[arg(value_name = "PLUGIN")]
    plugin: PluginName,
    #[command(flatten)]
    host: HostArguments,
    /// How long to wait for the host, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
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
        let timeout = Duration::from_secs(self.timeout);
        let report: PluginReport = self.host.ask(method, &params, timeout)?;
        reload::conclude(report, self.json)
    }
}
