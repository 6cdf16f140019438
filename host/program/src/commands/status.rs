//! `hotmerge status`: what runs.

use std::time::Duration;

use clap::{Args, builder::styling::AnsiColor};
use comfy_table::Cell;
use hotmerge_meta::control::{
    FailureStatus, PluginStatus, State, Status as Report, WorkerStatus, method,
};
use hotmerge_observe::log::plain;

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
        plain(&host.version),
        host.pid,
        plain(&host.abi),
        plain(&host.target),
        plain(&host.started)
    );
    anstream::println!(
        "plugins of {}, watched by {}, looked at {} times",
        plain(&host.plugin_dir.display().to_string()),
        plain(&host.watch),
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
    anstream::println!("workers are limited by {}", plain(&host.limits));
    let red = AnsiColor::Red.on_default();
    for part in &host.degraded {
        anstream::println!("{red}the sandbox is degraded: {}{red:#}", plain(part));
    }
    if let Some(failure) = &host.store_failure {
        let plugins: Vec<_> = failure.plugins.iter().map(|it| it.as_str()).collect();
        anstream::println!(
            "{red}not written down since {}, and forgotten if the host ends ({}): {}{red:#}",
            plain(&failure.since),
            plugins.join(", "),
            plain(&failure.reason)
        );
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
        "PID",
        "MEMORY",
        "CPU",
        "RESTARTS",
    ]);
    for plugin in plugins {
        let worker = plugin.worker.as_ref().filter(|worker| worker.pid.is_some());
        let of_worker = |text: &dyn Fn(&WorkerStatus) -> Option<String>| {
            let text = worker.and_then(text);
            coloured(text.as_deref().unwrap_or("-"), Meaning::Plain)
        };
        let hash = plugin.hash.map(|hash| hash.short());
        let is_whole = plugin.restarts == 0;
        table.add_row(vec![
            coloured(&plugin.name, Meaning::Plain),
            coloured(plugin.version.as_deref().unwrap_or("-"), Meaning::Plain),
            coloured(plugin.state, meaning(plugin.state)),
            coloured(plugin.generation, Meaning::Plain),
            coloured(hash.as_deref().unwrap_or("-"), Meaning::Plain),
            isolation(plugin),
            of_worker(&|it| Some(it.pid?.to_string())),
            of_worker(&|it| Some(mebibytes(it.memory_bytes?))),
            of_worker(&|it| Some(seconds(it.cpu_ms?))),
            coloured(
                plugin.restarts,
                if is_whole {
                    Meaning::Plain
                } else {
                    Meaning::Passing
                },
            ),
        ]);
    }
    table::print(&table);
    // Sentences have no place in a table: the narrowest terminal would decide where they end.
    let mut before = "\n";
    for plugin in plugins {
        for note in notes(plugin) {
            anstream::println!("{before}{}: {}", plugin.name, plain(&note));
            before = "";
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1e3)
}

fn meaning(state: State) -> Meaning {
    match state {
        State::Active => Meaning::Good,
        State::Error => Meaning::Bad,
        State::Idle => Meaning::Plain,
        State::Detecting | State::Unloading | State::Reloading => Meaning::Passing,
    }
}

fn isolation(plugin: &PluginStatus) -> Cell {
    let text = plugin.isolation.as_deref().unwrap_or("-");
    let is_degraded = plugin
        .worker
        .as_ref()
        .is_some_and(|it| !it.degraded.is_empty());
    match is_degraded {
        true => coloured(format!("{text} (degraded)"), Meaning::Passing),
        false => coloured(text, Meaning::Plain),
    }
}

/// What went wrong last, and what the plugin went on from.
fn failure(failure: &FailureStatus) -> Vec<String> {
    let state = match failure.state_age_ms {
        Some(ms) => format!("; it went on from a state {} old", seconds(ms)),
        None => String::new(),
    };
    let mut lines = vec![format!("at {} it {failure}{state}", failure.time)];
    lines.extend(failure.stack.iter().map(|frame| format!("  in {frame}")));
    lines
}

fn of_worker(worker: &WorkerStatus) -> Vec<String> {
    let missing = worker.degraded.iter();
    let mut notes: Vec<_> = missing
        .map(|part| format!("its sandbox is degraded: {part}"))
        .collect();
    if worker.log_dropped > 0 {
        notes.push(format!("{} log records lost", worker.log_dropped));
    }
    notes
}

fn notes(plugin: &PluginStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if plugin.state == State::Error && plugin.refused.is_none() {
        notes.push(plugin.reason.clone());
    }
    if let Some(last) = &plugin.last_failure {
        notes.extend(failure(last));
    }
    notes.extend(plugin.waiting.iter().cloned());
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
    if let Some(worker) = &plugin.worker {
        notes.extend(of_worker(worker));
    }
    if !plugin.not_granted.is_empty() {
        notes.push(format!(
            "asks in vain for {}",
            plugin.not_granted.join(", ")
        ));
    }
    if plugin.retained > 0 {
        notes.push(format!("{} old versions still mapped", plugin.retained));
    }
    if plugin.calls_panicked > 0 {
        notes.push(format!("{} calls panicked", plugin.calls_panicked));
    }
    notes
}
