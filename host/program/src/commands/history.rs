//! `hotmerge history`: what happened to the plugins, step by step.

use std::time::Duration;

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{HistoryParams, Transition, method},
};

use super::host::HostArguments;
use crate::{
    exit::CommandError,
    output,
    table::{self, Meaning, coloured},
};

/// Show every state transition of the plugins, with its time and reason.
///
/// The host keeps the last 4096.
#[derive(Args, Debug)]
pub(super) struct History {
    /// Show this plugin only
    #[arg(value_name = "PLUGIN")]
    plugin: Option<PluginName>,
    #[command(flatten)]
    host: HostArguments,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

impl History {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let params = HistoryParams {
            plugin: self.plugin,
        };
        let transitions: Vec<Transition> =
            self.host
                .ask(method::HISTORY, &params, Duration::from_secs(10))?;
        if self.json {
            output::print_json(&transitions)?;
        } else {
            output::print(text(&transitions));
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    const HASH: &str = "sha256:5f0c3f1b7d4e8a9260b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f50617";

    #[test]
    fn one_line_per_transition() {
        let transition = |from: &str, to: &str, old: Option<&str>, reason: &str| {
            json!({
                "time": "2026-01-02T03:04:05.678Z", "plugin": "counter", "old_version": old,
                "new_version": HASH, "from": from, "to": to, "reason": reason,
                "generation": 1, "position": 1,
            })
        };
        let transitions: Vec<Transition> = from_value(json!([
            transition("idle", "detecting", None, "a package appeared"),
            transition(
                "reloading",
                "active",
                Some(HASH),
                "the new version took over"
            ),
        ]))
        .expect("they are transitions");
        let shown = text(&[]) + "\n" + &text(&transitions);
        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string());
    }
}
