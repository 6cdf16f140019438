//! `hotmerge rollback`: back to a version that ran before.

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{PluginReport, RollbackParams, method},
};

use super::{host::Change, reload};
use crate::exit::{self, CommandError};

/// Go back to a version that ran before.
///
/// The host switches to it at once, even with `canary`. The version in the plugin directory is not
/// loaded again until it changes, even after a restart of the host.
#[derive(Args, Debug)]
pub(super) struct Rollback {
    /// Plugin name
    #[arg(value_name = "PLUGIN")]
    plugin: PluginName,
    /// Hash prefix of the version to go back to, one of those that `status --json` lists as
    /// `kept` [default: the version before the running one]
    #[arg(long, value_name = "HASH")]
    to: Option<String>,
    /// Discard the running version's state, for a version that cannot take it over
    #[arg(long)]
    without_state: bool,
    #[command(flatten)]
    change: Change,
}

impl Rollback {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let takes_state = !self.without_state;
        let params = RollbackParams {
            plugin: self.plugin,
            to: self.to,
            without_state: self.without_state,
        };
        let report: PluginReport = self.change.ask(method::ROLLBACK, &params)?;
        reload::conclude(report, reload::Override::RollBack, self.change.json).map_err(|failure| {
            match failure.code() == exit::REFUSED && takes_state {
                true => failure.advise("if it cannot take over the state, add `--without-state`"),
                false => failure,
            }
        })
    }
}
