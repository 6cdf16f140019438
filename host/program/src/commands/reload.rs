//! `hotmerge reload`: look at the plugin directory now, and say what came of it.

use clap::Args;
use hotmerge_daemon::UnknownPlugin;
use hotmerge_meta::{
    PluginName,
    control::{Action, PluginReport, ReloadParams, ReloadReport, method},
};

use hotmerge_observe::log::plain;

use super::{Change, print_json};
use crate::{
    exit::{self, Failure},
    table::{self, Meaning, coloured},
};

/// Look at the plugin directory now, wait until what follows is done, and show it.
///
/// Naming plugins tries them again even if what they are was refused before.
#[derive(Args, Debug)]
pub(super) struct Reload {
    /// Plugins to try again
    #[arg(value_name = "PLUGIN")]
    plugins: Vec<PluginName>,
    #[command(flatten)]
    change: Change,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), Failure> {
        let params = ReloadParams {
            retry: !self.plugins.is_empty(),
            plugins: (!self.plugins.is_empty()).then(|| self.plugins.clone()),
            since: None,
        };
        let report: ReloadReport = self.change.ask(method::RELOAD, &params)?;
        if self.change.json {
            print_json(&report)?;
        } else {
            print(&report);
        }
        verdict(&report, &self.plugins)
    }
}

fn verdict(report: &ReloadReport, asked: &[PluginName]) -> Result<(), Failure> {
    let refused = report
        .plugins
        .iter()
        .filter(|plugin| plugin.action == Action::Refused);
    let told = [
        (refused.count() as u64, "plugin", "refused"),
        (report.problems.len() as u64, "package", "cannot be used"),
    ];
    let told: Vec<_> = told
        .into_iter()
        .filter(|(number, _, _)| *number > 0)
        .map(|(number, what, how)| format!("{} {how}", count(number, what)))
        .collect();
    if !told.is_empty() {
        return Err(Failure::text(
            exit::REFUSED,
            format!("{}; what ran before still runs", told.join(", ")),
        ));
    }
    let unknown = asked
        .iter()
        .find(|name| !report.plugins.iter().any(|plugin| plugin.plugin == **name));
    if let Some(name) = unknown {
        return Err(Failure::from(UnknownPlugin {
            plugin: name.clone(),
            plugin_dir: report.plugin_dir.clone(),
        }));
    }
    Ok(())
}

fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn print(report: &ReloadReport) {
    let told = report.plugins.len() as u64;
    if told > 0 {
        print_reports(&report.plugins);
    }
    let others = report.installed.saturating_sub(told);
    if others > 0 {
        anstream::println!(
            "{} unchanged, in {:.1} ms",
            count(others, "plugin"),
            report.took_ms
        );
    } else if told == 0 {
        let dir = report.plugin_dir.display().to_string();
        anstream::println!("no plugins in {}", plain(&dir));
    }
    table::print_problems(&report.problems);
}

/// Prints one line a plugin.
pub(super) fn print_reports(plugins: &[PluginReport]) {
    let mut table = table::new(&["PLUGIN", "VERSION", "OLD", "NEW", "RESULT", "TOOK"]);
    for plugin in plugins {
        table.add_row(row(plugin));
    }
    table::print(&table);
}

fn row(plugin: &PluginReport) -> Vec<comfy_table::Cell> {
    let hash = |hash: Option<hotmerge_meta::Digest>| {
        hash.map_or_else(|| "-".to_owned(), |hash| hash.short())
    };
    let result = match &plugin.reason {
        Some(reason) => format!("{}: {reason}", plugin.action),
        None => plugin.action.to_string(),
    };
    let meaning = match plugin.action {
        Action::Loaded | Action::Reloaded => Meaning::Good,
        Action::Unchanged => Meaning::Plain,
        Action::Removed | Action::Trying => Meaning::Passing,
        Action::Refused => Meaning::Bad,
    };
    let version = plugin.version.as_ref();
    vec![
        coloured(&plugin.plugin, Meaning::Plain),
        coloured(
            version.map_or_else(|| "-".to_owned(), ToString::to_string),
            Meaning::Plain,
        ),
        coloured(hash(plugin.old_hash), Meaning::Plain),
        coloured(hash(plugin.hash), Meaning::Plain),
        coloured(result, meaning),
        coloured(format!("{:.1} ms", plugin.took_ms), Meaning::Plain),
    ]
}

/// Shows what came of one plugin.
pub(super) fn conclude(report: PluginReport, json: bool) -> Result<(), Failure> {
    if json {
        print_json(&report)?;
    } else {
        print_reports(std::slice::from_ref(&report));
    }
    if report.action == Action::Refused {
        return Err(Failure::text(
            exit::REFUSED,
            format!(
                "plugin `{}` refused; what ran before still runs",
                report.plugin
            ),
        ));
    }
    match report.not_durable {
        Some(reason) => Err(Failure::text(
            exit::FAILURE,
            format!(
                "it is done, but plugin `{}` would forget it at the host's next start: {reason}; \
                 the host goes on trying, see `hotmerge status`",
                report.plugin
            ),
        )),
        None => Ok(()),
    }
}
