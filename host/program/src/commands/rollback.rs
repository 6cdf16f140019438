//! `hotmerge rollback`: back to a version that ran before.

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{PluginReport, RollbackParams, method},
};

use super::{Change, reload};
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
    /// Start it as new: the state of what runs is lost. For a version that cannot take it over
    #[arg(long)]
    without_state: bool,
    #[command(flatten)]
    change: Change,
}

impl Rollback {
    pub(super) fn run(self) -> Result<(), Failure> {
        let takes_state = !self.without_state;
        let params = RollbackParams {
            plugin: self.plugin,
            to: self.to,
            without_state: self.without_state,
        };
        let report: PluginReport = self.change.ask(method::ROLLBACK, &params)?;
        reload::conclude(report, reload::Wish::RollBack, self.change.json).map_err(|refused| {
            match takes_state {
                true => refused.advise("if it cannot take over the state, add `--without-state`"),
                false => refused,
            }
        })
    }
}
