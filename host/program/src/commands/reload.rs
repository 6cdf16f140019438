//! `hotmerge reload`: rescan the plugin directory now, and show the result.

use clap::Args;
use hotmerge_daemon::UnknownPlugin;
use hotmerge_meta::{
    PluginName,
    control::{Action, KeyChange, PluginReport, ReloadParams, ReloadReport, method},
    count, plain,
};

use super::host::Change;
use crate::{
    exit::{self, CommandError},
    output,
    table::{self, Meaning, coloured},
};

const HEADING: &[&str] = &["PLUGIN", "VERSION", "OLD", "NEW", "RESULT", "TOOK"];

/// Rescan the plugin directory, wait for the reloads that follow, and show the result.
///
/// Named plugins are tried again even if their current version was refused, and the command waits
/// for and reports only these. With `canary` a version first takes a share of the calls, even when
/// it is tried again; only `hotmerge rollback` switches at once.
#[derive(Args, Debug)]
pub(super) struct Reload {
    /// Plugins to try again
    #[arg(value_name = "PLUGIN")]
    plugins: Vec<PluginName>,
    /// Report the problems of this package of the named plugins, too (repeatable)
    #[arg(long = "package", value_name = "PACKAGE", requires = "plugins")]
    packages: Vec<String>,
    /// Report everything since this position, from `hotmerge status --json`, and do not try again
    /// what was tried since then
    #[arg(long, value_name = "POSITION")]
    since: Option<u64>,
    /// Discard the state of the named plugins when they are replaced: for a plugin that cannot save
    /// its state, or a new version that cannot take it over
    #[arg(long, requires = "plugins")]
    without_state: bool,
    /// Do not fail if the named plugins are gone, because they were removed
    #[arg(long, requires = "plugins")]
    removed: bool,
    /// Read the configuration again first: restart only plugins whose settings have changed, and
    /// name the keys that wait for a restart of the host
    #[arg(long)]
    config: bool,
    /// Print short lines for a log: one per plugin and per problem; unchanged plugins only if
    /// named
    #[arg(long, conflicts_with = "json")]
    brief: bool,
    #[command(flatten)]
    change: Change,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let params = ReloadParams {
            retry: !self.plugins.is_empty(),
            plugins: (!self.plugins.is_empty()).then(|| self.plugins.clone()),
            since: self.since,
            only: !self.plugins.is_empty(),
            config: self.config,
            without_state: self.without_state,
        };
        let answer = self.change.ask::<ReloadReport>(method::RELOAD, &params);
        let mut report =
            answer.map_err(|error| self.change.name_slow_plugins(error, &self.plugins))?;
        if params.only {
            report
                .problems
                .retain(|problem| self.packages.contains(&problem.package));
        }
        if self.change.json {
            output::print_json(&report)?;
        } else if self.brief {
            output::print(brief(&report));
        } else {
            output::print(text(&report));
        }
        let expected = if self.removed { &[] } else { &*self.plugins };
        verdict(&report, expected)
    }
}

fn verdict(report: &ReloadReport, expected: &[PluginName]) -> Result<(), CommandError> {
    let config = report.config.as_ref();
    if let Some(reason) = config.and_then(|config| config.refused.as_ref()) {
        return Err(CommandError::text(
            exit::CONFIG,
            format!("{reason}; the configuration before it stays in force"),
        ));
    }
    let refused = report
        .plugins
        .iter()
        .filter(|plugin| plugin.action == Action::Refused);
    let failures = [
        (refused.count() as u64, "plugin", "refused"),
        (report.problems.len() as u64, "package", "cannot be used"),
    ];
    let failures: Vec<_> = failures
        .into_iter()
        .filter(|(number, _, _)| *number > 0)
        .map(|(number, what, how)| format!("{} {how}", count(number, what)))
        .collect();
    if !failures.is_empty() {
        return Err(CommandError::text(
            exit::REFUSED,
            format!("{}; what ran before still runs", failures.join(", ")),
        ));
    }
    let unknown = expected
        .iter()
        .find(|name| !report.plugins.iter().any(|plugin| plugin.plugin == **name));
    if let Some(name) = unknown {
        return Err(CommandError::from(UnknownPlugin {
            plugin: name.clone(),
            plugin_dir: report.plugin_dir.clone(),
        }));
    }
    Ok(())
}

fn text(report: &ReloadReport) -> String {
    let listed = report.plugins.len() as u64;
    let others = report.installed.saturating_sub(listed);
    let mut text = match listed {
        0 => String::new(),
        _ => plugins_text(&report.plugins),
    };
    if others > 0 {
        let others = count(others, "plugin");
        text += &format!("{others} unchanged, in {:.1} ms\n", report.took_ms);
    } else if listed == 0 {
        let dir = report.plugin_dir.display().to_string();
        text += &format!("no plugins in {}\n", plain(&dir));
    }
    text + &waiting(report) + &table::problems(&report.problems)
}

/// The keys of a new configuration that a running host cannot change.
fn waiting(report: &ReloadReport) -> String {
    let keys = report
        .config
        .iter()
        .flat_map(|config| &config.needs_restart);
    keys.map(|change| format!("{}\n", waits_for_restart(change)))
        .collect()
}

/// Says that a key waits for a restart of the host.
pub(super) fn waits_for_restart(change: &KeyChange) -> String {
    format!(
        "`{}` waits for a restart of the host: {} is in force, {} is configured",
        plain(&change.key),
        plain(&change.in_force),
        plain(&change.configured)
    )
}

/// How many characters of a reason fit into a short line; `status` has all of them.
const BRIEF_REASON: usize = 160;

fn brief(report: &ReloadReport) -> String {
    let mut lines = Vec::new();
    for plugin in &report.plugins {
        let version = plugin.version.as_ref();
        let version = version.map_or_else(String::new, |version| format!(" {version}"));
        let head = format!("{}{version}: {}", plugin.plugin, plugin.action);
        lines.push(match &plugin.reason {
            Some(reason) => format!("{head}: {}\n", shorten(reason)),
            None => format!("{head}\n"),
        });
    }
    for problem in &report.problems {
        let package = plain(&problem.package);
        lines.push(format!("package {package}: {}\n", shorten(&problem.reason)));
    }
    lines.push(waiting(report));
    lines.concat()
}

/// The beginning of what a plugin or a file may have written, on one line.
pub(super) fn shorten(reason: &str) -> String {
    let text = plain(reason);
    match text.char_indices().nth(BRIEF_REASON) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// One line per plugin.
fn plugins_text(plugins: &[PluginReport]) -> String {
    let mut table = table::new(HEADING);
    for plugin in plugins {
        table.add_row(row(plugin, &plugin.action.to_string()));
    }
    table::text(&table)
}

fn row(plugin: &PluginReport, what: &str) -> Vec<comfy_table::Cell> {
    let hash = |hash: Option<hotmerge_meta::Digest>| {
        hash.map_or_else(|| "-".to_owned(), |hash| hash.short())
    };
    let result = match &plugin.reason {
        Some(reason) => format!("{what}: {reason}"),
        None => what.to_owned(),
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

/// How an operator overrides the plugin directory for one plugin.
#[derive(Clone, Copy, Debug)]
pub(super) enum Override {
    Pin,
    Unpin,
    RollBack,
}

impl Override {
    /// The outcome in words. A pin is changed at once, whatever becomes of a candidate; a rollback is
    /// done when the other version runs.
    fn outcome(self, action: Action) -> String {
        match (self, action) {
            (Self::Pin, Action::Unchanged) => "pinned".to_owned(),
            (Self::Pin, other) => format!("pinned, candidate {other}"),
            (Self::Unpin, Action::Unchanged) => "unpinned".to_owned(),
            (Self::Unpin, other) => format!("unpinned, {other}"),
            (Self::RollBack, Action::Loaded | Action::Reloaded) => "rolled back".to_owned(),
            (Self::RollBack, other) => other.to_string(),
        }
    }
}

/// Shows the outcome of a pin, an unpin or a rollback.
pub(super) fn conclude(
    report: PluginReport,
    change: Override,
    json: bool,
) -> Result<(), CommandError> {
    if json {
        output::print_json(&report)?;
    } else {
        output::print(outcome_text(&report, change));
    }
    outcome_verdict(&report)
}

fn outcome_text(report: &PluginReport, change: Override) -> String {
    let mut table = table::new(HEADING);
    table.add_row(row(report, &change.outcome(report.action)));
    table::text(&table)
}

fn outcome_verdict(report: &PluginReport) -> Result<(), CommandError> {
    if report.action == Action::Refused {
        return Err(CommandError::text(
            exit::REFUSED,
            format!(
                "plugin `{}` refused; what ran before still runs",
                report.plugin
            ),
        ));
    }
    match &report.not_durable {
        Some(reason) => Err(CommandError::text(
            exit::FAILURE,
            format!(
                "the change is in force, but the host failed to save it for plugin `{}` and would lose \
                 it at its next start: {reason}; the host keeps trying, see `hotmerge status`",
                report.plugin
            ),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    const HASH: &str = "sha256:5f0c3f1b7d4e8a9260b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f50617";
    const OTHER: &str = "sha256:a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";

    fn shown(plugins: &Value, problems: &Value, installed: u64) -> String {
        let report: ReloadReport = from_value(json!({
            "plugins": plugins,
            "problems": problems,
            "installed": installed,
            "plugin_dir": "/usr/lib/hotmerge/plugins",
            "took_ms": 12.34,
            "position": 12,
        }))
        .expect("it is a report");
        let verdict = match verdict(&report, &[]) {
            Ok(()) => String::new(),
            Err(failure) => failure.report(),
        };
        anstream::adapter::strip_str(&(text(&report) + &verdict)).to_string()
    }

    #[test]
    fn one_line_per_plugin_that_changed() {
        let plugin = |name: &str, action: &str, old: Option<&str>, new: Option<&str>| {
            json!({
                "plugin": name, "version": new.map(|_| "1.0.0"), "old_hash": old, "hash": new,
                "action": action, "generation": 2, "took_ms": 1.25,
                "reason": (action == "refused").then_some("it is for another machine"),
            })
        };
        let plugins = json!([
            plugin("alpha", "loaded", None, Some(HASH)),
            plugin("beta", "reloaded", Some(OTHER), Some(HASH)),
            plugin("gamma", "removed", Some(OTHER), None),
            plugin("delta", "refused", Some(OTHER), Some(HASH)),
        ]);
        let problems = json!([{ "package": "stray", "reason": "it is not a directory" }]);
        insta::assert_snapshot!(shown(&plugins, &problems, 7));
    }

    #[test]
    fn a_new_configuration_says_what_waits() {
        let report: ReloadReport = from_value(json!({
            "plugins": [{
                "plugin": "alpha", "version": "1.0.0", "old_hash": HASH, "hash": HASH,
                "action": "reloaded", "generation": 2, "took_ms": 1.25,
                "reason": "its configuration has changed",
            }],
            "problems": [], "installed": 3, "plugin_dir": "/plugins", "took_ms": 12.34,
            "config": {
                "file": "/etc/hotmerge/hotmerge.toml",
                "restarted": ["alpha"],
                "needs_restart": [
                    {"key": "state_dir", "in_force": "/var/lib/hotmerge", "configured": "not set"},
                ],
            },
        }))
        .expect("it is a report");
        let text = anstream::adapter::strip_str(&text(&report)).to_string();
        insta::assert_snapshot!(text + &brief(&report));
    }

    #[test]
    fn brief_lines_name_plugins_packages_and_reasons() {
        let plugin = |name: &str, action: &str, reason: Option<String>| {
            json!({
                "plugin": name, "version": (action != "removed").then_some("1.0.0"),
                "old_hash": null, "hash": HASH, "action": action, "took_ms": 1.25,
                "reason": reason,
            })
        };
        let report: ReloadReport = from_value(json!({
            "plugins": [
                plugin("alpha", "loaded", None),
                plugin("beta", "unchanged", None),
                plugin("gamma", "removed", None),
                plugin("delta", "refused", Some("it is for another machine".into())),
                plugin("epsilon", "refused", Some("too long ".repeat(30))),
            ],
            "problems": [{ "package": "stray", "reason": "it is not a directory" }],
            "installed": 7, "plugin_dir": "/plugins", "took_ms": 12.34,
        }))
        .expect("it is a report");
        insta::assert_snapshot!(brief(&report));
    }

    /// What `pin`, `unpin` and `rollback` print, and their exit codes.
    #[test]
    fn overrides_print_their_outcome() {
        let mut shown = String::new();
        for change in [Override::Pin, Override::Unpin, Override::RollBack] {
            for (action, reason, not_durable) in [
                ("unchanged", None, None),
                ("reloaded", None, None),
                ("trying", None, None),
                ("refused", Some("it is for another machine"), None),
                ("unchanged", None, Some("no space left on device")),
            ] {
                let report: PluginReport = from_value(json!({
                    "plugin": "alpha", "version": "1.0.0", "old_hash": OTHER, "hash": HASH,
                    "action": action, "generation": 2, "took_ms": 1.25, "reason": reason,
                    "not_durable": not_durable,
                }))
                .expect("it is a report");
                let text = outcome_text(&report, change);
                shown += &format!(
                    "{change:?}, {action}\n{}",
                    anstream::adapter::strip_str(&text)
                );
                if let Err(failure) = outcome_verdict(&report) {
                    shown += &format!("{}[exit code {}]\n", failure.report(), failure.code());
                }
                shown += "\n";
            }
        }
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn nothing_changed_or_nothing_there() {
        let shown = |installed| shown(&json!([]), &json!([]), installed);
        insta::assert_snapshot!(format!("{}{}{}", shown(0), shown(1), shown(2)));
    }
}
