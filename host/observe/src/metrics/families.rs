//! Which metrics there are, from which part of a status or of the figures each comes.

use std::fmt;

use hotmerge_meta::{
    control::{LogSinkStatus, PluginStatus, Status, WorkerStatus},
    figures::{Figures, PluginFigures},
};
use prometheus_client::registry::Unit;

use super::rows::{Labels, Rows};

fn is(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

fn one<T>(value: T) -> [(Labels<'static>, T); 1] {
    [(Labels::new(), value)]
}

pub(super) fn host(rows: &mut Rows<'_>, status: &Status, figures: &Figures) -> fmt::Result {
    let host = &status.host;
    let build = [
        ("version", host.version.as_str()),
        ("abi", &host.abi),
        ("target", &host.target),
    ];
    rows.infos(("build", "The host's program", None), [build.to_vec()])?;
    rows.gauges(
        (
            "start_time",
            "When the host started, in seconds since 1970",
            Some(Unit::Seconds),
        ),
        one(figures.started),
    )?;
    rows.gauges(
        (
            "directory_problems",
            "Packages and files in the plugin directory that cannot be used",
            None,
        ),
        one(status.problems.len() as f64),
    )?;
    rows.gauges(
        (
            "config_refused",
            "Whether the last configuration that was read was refused",
            None,
        ),
        one(is(host.config.refused.is_some())),
    )?;
    rows.gauges(
        (
            "config_keys_waiting",
            "Keys that wait for a restart of the host",
            None,
        ),
        one(host.config.needs_restart.len() as f64),
    )?;
    rows.gauges(
        (
            "store_failing",
            "Whether versions and choices cannot be written to disk",
            None,
        ),
        one(is(host.store_failure.is_some())),
    )?;
    rows.gauges(
        (
            "sandbox_parts_missing",
            "Parts of the sandbox that this system does not provide",
            None,
        ),
        one(host.degraded.len() as f64),
    )?;
    rows.counters(
        (
            "replies_given_up",
            "Replies to calls between plugins that were dropped because too many were waiting",
            None,
        ),
        one(host.replies_given_up),
    )?;
    rows.counters(
        (
            "looks",
            "Scans of the plugin directory: of all packages, or of those that may have changed",
            None,
        ),
        [
            (vec![("kind", "full")], host.full_looks),
            (
                vec![("kind", "hinted")],
                host.rescans.saturating_sub(host.full_looks),
            ),
        ],
    )?;
    endings(rows, status)
}

fn endings(rows: &mut Rows<'_>, status: &Status) -> fmt::Result {
    let host = &status.host;
    rows.counters(
        (
            "drains_overdue",
            "Old versions on which calls still ran after the drain time",
            None,
        ),
        one(host.overdue),
    )?;
    rows.gauges(
        (
            "teardowns_stuck",
            "Old versions whose teardown has not returned in time",
            None,
        ),
        one(host.stuck as f64),
    )?;
    rows.counters(
        (
            "versions_retained",
            "Old versions that could not be unmapped",
            None,
        ),
        one(host.retained),
    )
}

pub(super) fn plugins(rows: &mut Rows<'_>, status: &Status) -> fmt::Result {
    let plugins = &status.plugins;
    let live = plugins.iter().filter(|it| it.hash.is_some());
    rows.infos(
        ("plugin", "The version that takes calls", None),
        live.map(|it| {
            vec![
                ("plugin", it.name.as_str()),
                ("version", it.version.as_deref().unwrap_or_default()),
                ("isolation", it.isolation.as_deref().unwrap_or_default()),
            ]
        }),
    )?;
    let mut gauge = |name, help, value: fn(&PluginStatus) -> f64| {
        let rows_of = plugins.iter().map(|it| (of(&it.name), value(it)));
        rows.gauges((name, help, None), rows_of)
    };
    gauge("plugin_live", "Whether a version takes calls", |it| {
        is(it.hash.is_some())
    })?;
    gauge("plugin_generation", "How many versions went live", |it| {
        it.generation as f64
    })?;
    gauge(
        "plugin_refused",
        "Whether the version in the directory was refused",
        |it| is(it.refused.is_some()),
    )?;
    gauge("plugin_pinned", "Whether an operator pinned it", |it| {
        is(it.pinned)
    })?;
    gauge(
        "plugin_versions_ending",
        "Old versions that have not ended",
        |it| it.ending.len() as f64,
    )?;
    rows.counters(
        (
            "plugin_restarts",
            "How often it was restarted after a crash",
            None,
        ),
        plugins.iter().map(|it| (of(&it.name), it.restarts)),
    )
}

fn of(plugin: &str) -> Labels<'_> {
    vec![("plugin", plugin)]
}

/// Of processes that run. A worker's counters begin at zero in the worker that replaces it.
pub(super) fn workers(rows: &mut Rows<'_>, status: &Status) -> fmt::Result {
    fn each<T>(
        status: &Status,
        value: fn(&WorkerStatus) -> Option<T>,
    ) -> impl Iterator<Item = (Labels<'_>, T)> {
        let workers = status.plugins.iter();
        workers.filter_map(move |it| Some((of(&it.name), value(it.worker.as_ref()?)?)))
    }
    rows.gauges(
        (
            "worker_memory",
            "Private memory of a plugin's worker",
            Some(Unit::Bytes),
        ),
        each(status, |it| Some(it.memory_bytes? as f64)),
    )?;
    rows.counters(
        (
            "worker_cpu",
            "Processor time of a plugin's worker",
            Some(Unit::Seconds),
        ),
        each(status, |it| Some(it.cpu_ms? as f64 / 1e3)),
    )?;
    rows.counters(
        (
            "worker_log_records_dropped",
            "Log records of a plugin's worker dropped for lack of room",
            None,
        ),
        each(status, |it| Some(it.log_dropped)),
    )
}

pub(super) fn calls(rows: &mut Rows<'_>, figures: &Figures) -> fmt::Result {
    fn ended(it: &PluginFigures) -> impl Iterator<Item = (Labels<'_>, u64)> {
        let plugin = it.plugin.as_str();
        let by = it.calls.iter();
        by.map(move |(outcome, count)| (vec![("plugin", plugin), ("outcome", *outcome)], *count))
    }
    let plugins = &figures.plugins;
    rows.counters(
        ("calls", "Calls that have ended, by outcome", None),
        plugins.iter().flat_map(ended),
    )?;
    rows.gauges(
        ("calls_in_flight", "Calls in progress", None),
        plugins
            .iter()
            .map(|it| (of(it.plugin.as_str()), it.in_flight as f64)),
    )?;
    rows.histograms(
        (
            "call_duration",
            "How long calls took; of calls below 5 microseconds only a sample is measured",
            Some(Unit::Seconds),
        ),
        plugins
            .iter()
            .map(|it| (of(it.plugin.as_str()), &it.latency)),
    )?;
    rows.counters(
        (
            "plugin_crashes",
            "How often it crashed or the host caught its panic",
            None,
        ),
        plugins
            .iter()
            .map(|it| (of(it.plugin.as_str()), it.crashes)),
    )
}

pub(super) fn reloads(rows: &mut Rows<'_>, figures: &Figures) -> fmt::Result {
    let changes = figures.changes.iter();
    rows.counters(
        ("reloads", "Reloads that ended, by outcome and cause", None),
        changes.map(|it| {
            let labels = vec![("outcome", it.outcome), ("cause", it.cause)];
            (labels, it.count)
        }),
    )?;
    let seconds = || Some(Unit::Seconds);
    rows.histograms(
        (
            "reload_duration",
            "Time from the detection of a version to its first call",
            seconds(),
        ),
        one(&figures.change),
    )?;
    rows.histograms(
        (
            "switch_pause",
            "How long calls waited while a version took over the state",
            seconds(),
        ),
        one(&figures.pause),
    )?;
    rows.histograms(
        (
            "drain_duration",
            "From the switch to the return of the old version's last call",
            seconds(),
        ),
        one(&figures.drain),
    )
}

pub(super) fn watchers(rows: &mut Rows<'_>, status: &Status) -> fmt::Result {
    let watchers = &status.host.watchers;
    let by = |name| vec![("watcher", name)];
    rows.gauges(
        (
            "watcher_directories",
            "Directories that a watcher covers",
            None,
        ),
        watchers
            .iter()
            .map(|it| (by(it.name.as_str()), it.directories as f64)),
    )?;
    rows.gauges(
        ("watcher_failed", "Whether a watcher does not run", None),
        watchers
            .iter()
            .map(|it| (by(it.name.as_str()), is(it.failure.is_some()))),
    )?;
    rows.counters(
        ("watcher_events", "Events that a watcher has read", None),
        watchers.iter().map(|it| (by(it.name.as_str()), it.events)),
    )?;
    rows.counters(
        (
            "watcher_overflows",
            "How often a watcher lost events, after which the host scans everything",
            None,
        ),
        watchers
            .iter()
            .map(|it| (by(it.name.as_str()), it.overflows)),
    )
}

/// Of the log's sinks, whose names are the configuration's.
pub(super) fn sinks(rows: &mut Rows<'_>, status: &Status) -> fmt::Result {
    let sinks = &status.host.log_sinks;
    fn by(sink: &LogSinkStatus) -> Labels<'_> {
        vec![("sink", sink.name.as_str())]
    }
    for (name, help, count) in [
        (
            "log_records_delivered",
            "Log records that a sink delivered",
            (|it| it.delivered) as fn(&LogSinkStatus) -> u64,
        ),
        (
            "log_records_failed",
            "Log records that were dropped because a sink refused them or failed for too long",
            |it| it.failed,
        ),
    ] {
        let rows_of = sinks.iter().map(|it| (by(it), count(it)));
        rows.counters((name, help, None), rows_of)?;
    }
    rows.counters(
        (
            "log_records_dropped",
            "Log records that were dropped for lack of room in a sink's queue, by source",
            None,
        ),
        sinks.iter().flat_map(|it| {
            let dropped = [("host", it.dropped.host), ("plugin", it.dropped.plugins)];
            let name = it.name.as_str();
            dropped.map(|(source, count)| (vec![("sink", name), ("source", source)], count))
        }),
    )?;
    rows.gauges(
        (
            "log_records_waiting",
            "Log records that wait for a sink",
            None,
        ),
        sinks.iter().map(|it| (by(it), it.waiting as f64)),
    )?;
    rows.gauges(
        ("log_sink_failing", "Whether a sink does not work", None),
        sinks.iter().map(|it| (by(it), is(it.failing))),
    )
}

pub(super) fn door(rows: &mut Rows<'_>, status: &Status) -> fmt::Result {
    let Some(door) = &status.host.door else {
        return Ok(());
    };
    rows.gauges(
        ("door_connections_open", "Open connections", None),
        one(door.open as f64),
    )?;
    for (name, help, count) in [
        ("door_connections", "Connections accepted", door.connections),
        ("door_requests", "Requests received", door.requests),
        (
            "door_denied",
            "Connections and requests refused for lack of a role",
            door.denied,
        ),
        (
            "door_busy",
            "Connections and requests refused for lack of room",
            door.busy,
        ),
        (
            "door_closed",
            "Connections closed to make room for others",
            door.closed,
        ),
    ] {
        rows.counters((name, help, None), one(count))?;
    }
    Ok(())
}
