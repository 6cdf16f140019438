//! `hotmerge history`: what happened to the plugins, step by step.

use std::time::Duration;

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{HistoryParams, Transition, method},
};

use super::HostArguments;
use crate::{
    exit::Failure,
    output,
    table::{self, Meaning, coloured},
};

/// Show each transition of the plugins, with its time and its reason.
///
/// The host remembers the last 4096.
#[derive(Args, Debug)]
pub(super) struct History {
    /// Only this plugin's
    #[arg(value_name = "PLUGIN")]
    plugin: Option<PluginName>,
    #[command(flatten)]
    host: HostArguments,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

impl History {
    pub(super) fn run(self) -> Result<(), Failure> {
        let params = HistoryParams {
            plugin: self.plugin,
        };
        let transitions: Vec<Transition> =
            self.host
                .ask(method::HISTORY, &params, Duration::from_secs(10))?;
        if self.json {
            return Ok(output::print_json(&transitions)?);
        }
        Ok(output::print(text(&transitions))?)
    }
}

fn text(transitions: &[Transition]) -> String {
    if transitions.is_empty() {
        return "no transitions yet\n".to_owned();
    }
    let mut table = table::new(&["TIME", "PLUGIN", "OLD VERSION", "FROM", "TO", "REASON"]);
    for it in transitions {
        let old = it.old_version.map(|hash| hash.short()).unwrap_or_default();
        let cells = [
            &it.time,
            it.plugin.as_str(),
            &old,
            &it.from,
            &it.to,
            &it.reason,
        ];
        table.add_row(cells.map(|text| coloured(text, Meaning::Plain)));
    }
    table::text(&table)
}
