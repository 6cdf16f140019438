//! `hotmerge reload`: look at the plugin directory now, and say what came of it.

use clap::Args;
use hotmerge_daemon::{UnknownPlugin, log::plain};
use hotmerge_meta::{
    PluginName,
    control::{Action, PluginReport, ReloadParams, ReloadReport, method},
};

use super::{Change, print_json};
use crate::{
    exit::{self, Failure},
    table::{self, Meaning, coloured},
};

/// Look at the plugin directory now, wait until what follows is done, and show it.
///
/// Naming plugins tries them again even if what they are was refused before, and waits for,
/// shows and judges these alone.
#[derive(Args, Debug)]
pub(super) struct Reload {
    /// Plugins to try again
    #[arg(value_name = "PLUGIN")]
    plugins: Vec<PluginName>,
    /// The package that the named plugins are from: show and judge its own problems too (may be
    /// given several times)
    #[arg(long = "package", value_name = "PACKAGE", requires = "plugins")]
    packages: Vec<String>,
    /// Tell of everything since this position, from `hotmerge status --json`; what was tried
    /// since then is not tried again
    #[arg(long, value_name = "POSITION")]
    since: Option<u64>,
    /// The named plugins were removed: not to find them is as it should be
    #[arg(long, requires = "plugins")]
    removed: bool,
    /// Print short lines for a log: one a plugin and a problem, and what is unchanged only if named
    #[arg(long, conflicts_with = "json")]
    brief: bool,
    #[command(flatten)]
    change: Change,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), Failure> {
        let params = ReloadParams {
            retry: !self.plugins.is_empty(),
            plugins: (!self.plugins.is_empty()).then(|| self.plugins.clone()),
            since: self.since,
            only: !self.plugins.is_empty(),
        };
        let mut report: ReloadReport = self.change.ask(method::RELOAD, &params)?;
        if params.only {
            report
                .problems
                .retain(|problem| self.packages.contains(&problem.package));
        }
        if self.change.json {
            print_json(&report)?;
        } else if self.brief {
            print_brief(&report);
        } else {
            print(&report);
        }
        let expected = if self.removed { &[] } else { &*self.plugins };
        verdict(&report, expected)
    }
}

fn verdict(report: &ReloadReport, expected: &[PluginName]) -> Result<(), Failure> {
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
    let unknown = expected
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
        anstream::println!("no plugins in {}", report.plugin_dir.display());
    }
    table::print_problems(&report.problems);
}

/// How many characters of a reason a short line has room for; `status` has all of them.
const BRIEF_REASON: usize = 160;

fn print_brief(report: &ReloadReport) {
    for plugin in &report.plugins {
        let version = plugin.version.as_ref();
        let version = version.map_or_else(String::new, |version| format!(" {version}"));
        let head = format!("{}{version}: {}", plugin.plugin, plugin.action);
        match &plugin.reason {
            Some(reason) => anstream::println!("{head}: {}", shorten(reason)),
            None => anstream::println!("{head}"),
        }
    }
    for problem in &report.problems {
        let package = plain(&problem.package);
        anstream::println!("package {package}: {}", shorten(&problem.reason));
    }
}

/// The beginning of what a plugin or a file may have written, on one line.
pub(super) fn shorten(reason: &str) -> String {
    let text = plain(reason);
    match text.char_indices().nth(BRIEF_REASON) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
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
    match report.action {
        Action::Refused => Err(Failure::text(
            exit::REFUSED,
            format!(
                "plugin `{}` refused; what ran before still runs",
                report.plugin
            ),
        )),
        _ => Ok(()),
    }
}
