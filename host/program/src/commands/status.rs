//! `hotmerge status`: what runs.

use std::time::Duration;

use clap::{Args, builder::styling::AnsiColor};
use comfy_table::Cell;
use hotmerge_meta::control::{
    ConfigRefused, ConfigStatus, DoorStatus, FailureStatus, HostStatus, LogSinkStatus, PluginState,
    PluginStatus, Status as Report, StoreFailure, WatcherStatus, WorkerStatus, method,
};
use hotmerge_meta::{count, plain};

use super::{host::HostArguments, reload::waits_for_restart};
use crate::{
    exit::CommandError,
    output,
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
    pub(super) fn run(self) -> Result<(), CommandError> {
        let status: Report = self
            .host
            .ask(method::STATUS, &(), Duration::from_secs(10))?;
        if self.json {
            output::print_json(&status)?;
        } else {
            output::print(text(&status));
        }
        Ok(())
    }
}

fn text(status: &Report) -> String {
    let plugins = match status.plugins.as_slice() {
        [] => "no plugins\n".to_owned(),
        plugins => plugins_text(plugins),
    };
    let problems = table::problems(&status.problems);
    format!("{}\n{plugins}{problems}", host_text(&status.host))
}

fn host_text(host: &HostStatus) -> String {
    let mut lines = vec![
        format!(
            "hotmerge {} (pid {}, ABI {}, {}), up since {}",
            plain(&host.version),
            host.pid,
            plain(&host.abi),
            plain(&host.target),
            plain(&host.started)
        ),
        format!(
            "plugins of {}, {}; scanned {}{}",
            plain(&host.plugin_dir.display().to_string()),
            plain(&watched(&host.watch)),
            count(host.rescans, "time"),
            scans_text(host)
        ),
    ];
    lines.extend(host.watchers.iter().map(watcher_text));
    for (number, what, how) in [
        (host.retained, "old version", "could not be unmapped"),
        (host.stuck, "old version", "stuck in teardown"),
        (host.overdue, "drain", "took longer than `drain_ms`"),
        (host.log_dropped, "log record", "dropped"),
        (
            host.replies_given_up,
            "call",
            "between plugins lost the reply because too many replies were waiting",
        ),
    ] {
        if number > 0 {
            lines.push(format!("{} {how}", count(number, what)));
        }
    }
    lines.push(format!("worker limits: {}", plain(&host.limits)));
    lines.extend(host.door.as_ref().and_then(door_text));
    lines.extend(sinks_text(&host.log_sinks));
    lines.extend(config_text(&host.config));
    let red = AnsiColor::Red.on_default();
    let degraded = host.degraded.iter();
    let degraded = degraded.map(|part| format!("the sandbox is degraded: {}", plain(part)));
    let store = host.store_failure.as_ref().map(store_text);
    let refused = host.config.refused.as_ref().map(refused_text);
    let watchers = host.watchers.iter().filter_map(not_watched_text);
    let sinks = host.log_sinks.iter().filter_map(failing_text);
    lines.extend(
        watchers
            .chain(degraded)
            .chain(store)
            .chain(sinks)
            .chain(refused)
            .map(|line| format!("{red}{line}{red:#}")),
    );
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Which configuration is in force, and which of its keys are not yet.
fn config_text(config: &ConfigStatus) -> Vec<String> {
    let Some(file) = &config.file else {
        return Vec::new();
    };
    let file = plain(&file.display().to_string());
    let since = plain(&config.since);
    let mut lines = vec![format!("configuration {file}, as of {since}")];
    lines.extend(config.needs_restart.iter().map(waits_for_restart));
    lines
}

fn refused_text(refused: &ConfigRefused) -> String {
    format!(
        "the configuration was refused at {}, and the one before is in force: {}",
        plain(&refused.time),
        plain(&refused.reason)
    )
}

/// A line for the control socket if it refused or closed anything.
fn door_text(door: &DoorStatus) -> Option<String> {
    let refusals: Vec<_> = [
        (door.denied, "refused for lack of a role"),
        (door.busy, "refused for lack of room"),
        (door.closed, "closed to make room"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, how)| format!("{number} {how}"))
    .collect();
    (!refusals.is_empty()).then(|| {
        let requests = count(door.requests, "request");
        format!("control socket: {requests}; {}", refusals.join(", "))
    })
}

/// What the log's sinks do, if any are configured.
fn sinks_text(sinks: &[LogSinkStatus]) -> Vec<String> {
    // Without any, all goes to standard error.
    if let [only] = sinks
        && only.name == only.kind
        && only.kind == "stderr"
    {
        return Vec::new();
    }
    sinks.iter().map(sink_text).collect()
}

fn sink_text(sink: &LogSinkStatus) -> String {
    let name = plain(&sink.name);
    let mut line = format!(
        "log sink {name} ({}): {} delivered, {} dropped, {} failed, {} waiting",
        plain(&sink.kind),
        sink.delivered,
        sink.dropped.host + sink.dropped.plugins,
        sink.failed,
        sink.waiting
    );
    if let Some(last) = sink.last_error.as_ref().filter(|_| !sink.failing) {
        line.push_str(&format!(
            "; last error at {}: {}",
            plain(&last.time),
            plain(&last.reason)
        ));
    }
    line
}

fn failing_text(sink: &LogSinkStatus) -> Option<String> {
    let last = sink.last_error.as_ref().filter(|_| sink.failing)?;
    Some(format!(
        "the log sink {} is failing, last at {}: {}",
        plain(&sink.name),
        plain(&last.time),
        plain(&last.reason)
    ))
}

fn store_text(failure: &StoreFailure) -> String {
    let plugins: Vec<_> = failure.plugins.iter().map(|it| it.as_str()).collect();
    format!(
        "not persisted since {}, and lost if the host ends ({}): {}",
        plain(&failure.since),
        plugins.join(", "),
        plain(&failure.reason)
    )
}

/// How changes are noticed, in a sentence.
fn watched(watch: &str) -> String {
    match watch.strip_prefix("off: ") {
        Some(why) => format!("not watched ({why})"),
        None => format!("watched by {watch}"),
    }
}

fn scans_text(host: &HostStatus) -> String {
    // An older host does not report it.
    let Some(last) = &host.last_look else {
        return String::new();
    };
    let full = host.full_looks;
    format!(" ({full} of all packages), last at {}", plain(last))
}

fn watcher_text(watcher: &WatcherStatus) -> String {
    let scope = match watcher.scope.as_str() {
        "" => String::new(),
        scope => format!("{scope}; "),
    };
    let name = plain(&watcher.name);
    format!(
        "{name}: {}{}, {}, {}",
        plain(&scope),
        match watcher.directories {
            1 => "1 directory".to_owned(),
            more => format!("{more} directories"),
        },
        count(watcher.events, "event"),
        count(watcher.overflows, "overflow")
    )
}

fn not_watched_text(watcher: &WatcherStatus) -> Option<String> {
    let failure = watcher.failure.as_ref()?;
    Some(format!("{}: {}", plain(&watcher.name), plain(failure)))
}

fn plugins_text(plugins: &[PluginStatus]) -> String {
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
    // Notes follow the table: a sentence in a column would widen it beyond any terminal.
    let notes = plugins.iter().flat_map(|plugin| {
        let notes = notes(plugin).into_iter();
        notes.map(|note| format!("{}: {}\n", plugin.name, plain(&note)))
    });
    let notes: String = notes.collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    table::text(&table) + gap + &notes
}

pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1e3)
}

pub(super) fn meaning(state: PluginState) -> Meaning {
    match state {
        PluginState::Active => Meaning::Good,
        PluginState::Error => Meaning::Bad,
        PluginState::Idle => Meaning::Plain,
        PluginState::Detecting | PluginState::Unloading | PluginState::Reloading => {
            Meaning::Passing
        }
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

/// The last failure, and the state from which the plugin continued.
fn failure(failure: &FailureStatus) -> Vec<String> {
    let state = match failure.state_age_ms {
        Some(ms) => format!("; restarted from state saved {} earlier", seconds(ms)),
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
        notes.push(format!(
            "{} dropped",
            count(worker.log_dropped, "log record")
        ));
    }
    notes
}

pub(super) fn notes(plugin: &PluginStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if plugin.state == PluginState::Error && plugin.refused.is_none() {
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
    if plugin.outdated {
        notes.push("runs with an earlier configuration than the one in force".to_owned());
    }
    if let Some(signed) = &plugin.signed {
        notes.push(format!("signed by `{}` (key {})", signed.by, signed.key));
    }
    if plugin.pinned {
        notes.push("pinned".to_owned());
    }
    if let Some(hash) = &plugin.rolled_back {
        notes.push(format!("{} was rolled back", hash.short()));
    }
    if let Some(canary) = &plugin.canary {
        notes.push(format!(
            "canary {} ({}): {}, {} failed",
            canary.version,
            canary.hash.short(),
            count(canary.calls, "call"),
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
            "requested but not granted: {}",
            plugin.not_granted.join(", ")
        ));
    }
    if plugin.retained > 0 {
        notes.push(format!(
            "{} still mapped",
            count(plugin.retained, "old version")
        ));
    }
    if plugin.calls_panicked > 0 {
        notes.push(format!("{} panicked", count(plugin.calls_panicked, "call")));
    }
    notes
}

#[cfg(test)]
mod tests;
