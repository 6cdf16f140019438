//! `hotmerge status`: what runs.

use std::time::Duration;

use clap::Args;
use hotmerge_daemon::{
    lifecycle::State,
    status::{PluginStatus, Status as Report},
};
use hotmerge_meta::control::method;

use super::{HostArguments, print_json};
use crate::{
    exit::Failure,
    table::{self, Meaning, coloured},
};

/// Show the running host and its plugins.
#[derive(Args, Debug)]
pub(super) struct Status {
    #[command(flatten)]
    host: HostArguments,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self) -> Result<(), Failure> {
        let status: Report = self
            .host
            .ask(method::STATUS, &(), Duration::from_secs(10))?;
        if self.json {
            return print_json(&status);
        }
        print(&status);
        Ok(())
    }
}

fn print(status: &Report) {
    let host = &status.host;
    anstream::println!(
        "hotmerge {} (pid {}, ABI {}, {}), up since {}",
        host.version,
        host.pid,
        host.abi,
        host.target,
        host.started
    );
    anstream::println!(
        "plugins of {}, watched by {}, looked at {} times",
        host.plugin_dir.display(),
        host.watch,
        host.rescans
    );
    for (count, what) in [
        (host.retained, "old versions could not be unmapped"),
        (host.stuck, "old versions hang in their teardown"),
        (host.overdue, "drains took longer than they should"),
        (host.log_dropped, "log records found no room"),
    ] {
        if count > 0 {
            anstream::println!("{count} {what}");
        }
    }
    anstream::println!();
    if status.plugins.is_empty() {
        anstream::println!("no plugins");
    } else {
        plugins(&status.plugins);
    }
    table::print_problems(&status.problems);
}

fn plugins(plugins: &[PluginStatus]) {
    let mut table = table::new(&[
        "PLUGIN",
        "VERSION",
        "STATE",
        "GEN",
        "HASH",
        "ISOLATION",
        "NOTE",
    ]);
    for plugin in plugins {
        table.add_row(vec![
            coloured(&plugin.name, Meaning::Plain),
            coloured(plugin.version.as_deref().unwrap_or("-"), Meaning::Plain),
            coloured(plugin.state, meaning(plugin.state)),
            coloured(plugin.generation, Meaning::Plain),
            coloured(
                plugin
                    .hash
                    .map_or_else(|| "-".to_owned(), |hash| hash.short()),
                Meaning::Plain,
            ),
            coloured(plugin.isolation.as_deref().unwrap_or("-"), Meaning::Plain),
            coloured(note(plugin), Meaning::Plain),
        ]);
    }
    table::print(&table);
}

fn meaning(state: State) -> Meaning {
    match state {
        State::Active => Meaning::Good,
        State::Error => Meaning::Bad,
        State::Idle => Meaning::Plain,
        State::Detecting | State::Unloading | State::Reloading => Meaning::Passing,
    }
}

fn note(plugin: &PluginStatus) -> String {
    let mut notes = Vec::new();
    if let Some(refused) = &plugin.refused {
        notes.push(format!(
            "refused {}: {}",
            refused.hash.short(),
            refused.reason
        ));
    }
    if plugin.pinned {
        notes.push("pinned".to_owned());
    }
    if let Some(hash) = &plugin.rolled_back {
        notes.push(format!("{} was rolled back", hash.short()));
    }
    if let Some(canary) = &plugin.canary {
        notes.push(format!(
            "tries {} ({}): {} calls, {} failed",
            canary.version,
            canary.hash.short(),
            canary.calls,
            canary.failed
        ));
    }
    if !plugin.ending.is_empty() {
        let states: Vec<_> = plugin.ending.iter().map(|ending| &*ending.state).collect();
        notes.push(format!("old versions: {}", states.join(", ")));
    }
    if plugin.retained > 0 {
        notes.push(format!("{} old versions still mapped", plugin.retained));
    }
    if plugin.calls_panicked > 0 {
        notes.push(format!("{} calls panicked", plugin.calls_panicked));
    }
    notes.join("; ")
}
