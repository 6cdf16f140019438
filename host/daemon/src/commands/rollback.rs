//! `hotmerge rollback`: back to a version that ran before.

use std::time::Duration;

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{PluginReport, RollbackParams, method},
};

use super::{HostArguments, reload};
use crate::exit::Failure;

/// Go back to a version that ran before.
///
/// The version in the plugin directory is not loaded again until it changes, also after a
/// restart of the host.
#[derive(Args, Debug)]
pub(super) struct Rollback {
    /// Which plugin
    #[arg(value_name = "PLUGIN")]
    plugin: PluginName,
    /// The version whose hash begins so, out of those that `status --json` calls `kept`
    /// [default: the one before what runs]
    #[arg(long, value_name = "HASH")]
    to: Option<String>,
    #[command(flatten)]
    host: HostArguments,
    /// How long to wait for the host, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Rollback {
    pub(super) fn run(self) -> Result<(), Failure> {
        let params = RollbackParams {
            plugin: self.plugin,
            to: self.to,
        };
        let timeout = Duration::from_secs(self.timeout);
        let report: PluginReport = self.host.ask(method::ROLLBACK, &params, timeout)?;
        reload::conclude(report, self.json)
    }
}
