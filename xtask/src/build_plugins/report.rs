//! Reports the result: a table for people, one line per plugin for programs.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::Result;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use hotmerge_meta::{
    Digest, PluginName,
    control::{Action, PluginReport},
    plain,
};
use semver::Version;
use serde::{Serialize, Serializer};

use super::{
    compile::Built,
    discover::Plugin,
    stage::{Change, Staged},
};
use crate::output;

/// Below this, cells would be cut into single letters.
const MIN_COLUMNS: u16 = 60;

/// The result for a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// The host's report.
    Host(Action),
    /// No host has reported: the result in the staging directory.
    Staging(Change),
}

impl Done {
    fn word(self) -> &'static str {
        match self {
            Self::Host(Action::Loaded) => "loaded",
            Self::Host(Action::Reloaded) => "reloaded",
            Self::Host(Action::Refused) => "refused",
            Self::Host(Action::Trying) => "trying",
            Self::Host(Action::Unchanged) | Self::Staging(Change::Unchanged) => "unchanged",
            Self::Host(Action::Removed) | Self::Staging(Change::Removed) => "removed",
            Self::Staging(Change::Written) => "staged",
        }
    }

    fn cell(self, reason: Option<&str>) -> Cell {
        let word = self.word();
        let with_reason = |reason: &str| format!("{word}: {}", plain(reason));
        let cell = Cell::new(reason.map_or_else(|| word.to_owned(), with_reason));
        match word {
            "unchanged" => cell.add_attribute(Attribute::Dim),
            "refused" => cell.fg(Color::Red).add_attribute(Attribute::Bold),
            "removed" => cell.fg(Color::Yellow),
            _ => cell.fg(Color::Green),
        }
    }
}

impl Serialize for Done {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// One plugin's line. As JSON it is a contract: fields are added, never changed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    plugin: PluginName,
    version: Version,
    /// Null if there was no version before.
    old_hash: Option<Digest>,
    /// Null if the plugin was removed.
    hash: Option<Digest>,
    action: Done,
    /// Why it was refused, was removed, or does not run although it is unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The generation that runs now.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    /// Cargo's time; zero if there was nothing to build.
    build_ms: f64,
    /// The host's time.
    #[serde(skip_serializing_if = "Option::is_none")]
    host_ms: Option<f64>,
}

impl Line {
    /// Combines the results of staging and, if available, of the host for a plugin.
    pub(crate) fn new(
        staged: Staged,
        built: &[(Plugin, Built)],
        host: Option<&PluginReport>,
    ) -> Self {
        let took = built
            .iter()
            .find(|(plugin, _)| plugin.name == staged.plugin);
        let took = took.map_or(Duration::ZERO, |(_, built)| built.took);
        let mut line = Self {
            plugin: staged.plugin,
            version: staged.version,
            old_hash: staged.old_hash,
            hash: staged.hash,
            action: Done::Staging(staged.change),
            reason: staged.reason,
            generation: None,
            build_ms: took.as_secs_f64() * 1e3,
            host_ms: None,
        };
        if let Some(host) = host {
            line.action = Done::Host(host.action);
            line.old_hash = host.old_hash;
            line.reason = host.reason.clone().or(line.reason);
            line.generation = host.generation;
            line.host_ms = Some(host.took_ms);
        }
        line
    }

    pub(crate) fn plugin(&self) -> &PluginName {
        &self.plugin
    }

    /// Why a plugin was removed, if its author may not have meant that.
    pub(crate) fn why_removed(&self) -> Option<&str> {
        let reason = self.reason.as_deref();
        reason.filter(|_| self.hash.is_none())
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.action == Done::Host(Action::Refused)
    }

    fn hashes(&self) -> String {
        let short = |hash: Option<Digest>| hash.map_or_else(|| "-".to_owned(), |hash| hash.short());
        if self.old_hash == self.hash {
            return short(self.hash);
        }
        format!("{} → {}", short(self.old_hash), short(self.hash))
    }
}

/// Prints one JSON object per line.
pub(crate) fn json(lines: &[Line]) -> Result<()> {
    for line in lines {
        output::line(format_args!("{}", serde_json::to_string(line)?));
    }
    Ok(())
}

/// Prints a table; without colours unless on a terminal.
pub(crate) fn table(lines: &[Line]) {
    if lines.is_empty() {
        return;
    }
    let mut table = filled(lines);
    match anstream::AutoStream::choice(&io::stdout()) {
        anstream::ColorChoice::Never => table.force_no_tty(),
        _ => table.enforce_styling(),
    };
    // A terminal that does not know its width, or has hardly any, wraps better by itself.
    if io::stdout().is_terminal() && table.width().is_some_and(|columns| columns >= MIN_COLUMNS) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    output::bytes(format!("{}\n", table.trim_fmt()).as_bytes());
}

/// A row per plugin.
fn filled(lines: &[Line]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["plugin", "version", "hash", "result", "took"]);
    for line in lines {
        table.add_row([
            Cell::new(&line.plugin),
            Cell::new(&line.version),
            Cell::new(line.hashes()),
            line.action.cell(line.reason.as_deref()),
            Cell::new(human_ms(line.build_ms + line.host_ms.unwrap_or(0.0))),
        ]);
    }
    table
}

/// Milliseconds with a readable number of digits.
pub(crate) fn human_ms(ms: f64) -> String {
    match ms {
        0.0 => "-".to_owned(),
        ..10.0 => format!("{ms:.1} ms"),
        ..1000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_per_plugin() {
        let digest = |text: &str| Some(Digest::of(text.as_bytes()));
        let line = |name: &str, action, old_hash, hash, reason: Option<&str>| Line {
            plugin: PluginName::new(name).unwrap(),
            version: Version::new(1, 0, 0),
            old_hash,
            hash,
            action,
            reason: reason.map(ToOwned::to_owned),
            generation: None,
            build_ms: 1234.0,
            host_ms: Some(1.25),
        };
        let (old, new) = (digest("old"), digest("new"));
        let refused = Some("it is for another machine");
        let mut table = filled(&[
            line("alpha", Done::Host(Action::Loaded), None, new, None),
            line("beta", Done::Host(Action::Reloaded), old, new, None),
            line("gamma", Done::Host(Action::Refused), old, new, refused),
            line("delta", Done::Host(Action::Trying), old, new, None),
            line("epsilon", Done::Staging(Change::Unchanged), new, new, None),
            line("zeta", Done::Staging(Change::Written), old, new, None),
            line("eta", Done::Staging(Change::Removed), old, None, None),
        ]);
        table.force_no_tty();
        insta::assert_snapshot!(format!("{}\n", table.trim_fmt()));
    }
}
