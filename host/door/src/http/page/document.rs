//! The page as HTML, which every browser shows without scripts.
//!
//! Invariant: text from plugins, packages and clients is on one line, bounded and escaped.
//!
//! Absent on purpose: asking the host.

use hotmerge_meta::{
    Digest,
    control::{
        Change, ConfigStatus, DoorStatus, HostStatus, PluginState, PluginStatus, Problem, Status,
        WatcherStatus,
    },
    count,
    figures::{Figures, PluginFigures},
};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    figure::{self, Milliseconds},
    text::text,
    timeline,
};

/// The style and the script of every page.
pub(super) const STYLE: &str = include_str!("page.css");
pub(super) const SCRIPT: &str = include_str!("page.js");

/// The most plugins and problems that the page shows.
const ROWS: usize = 1000;

/// An icon, so that browsers request none.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
                    %3Ccircle cx='8' cy='8' r='6' fill='%230b6b5d'/%3E%3C/svg%3E";

/// What the page shows.
#[derive(Debug)]
pub(super) struct View {
    pub(super) status: Status,
    pub(super) figures: Figures,
    /// Oldest first.
    pub(super) changes: Vec<Change>,
    pub(super) now: Timestamp,
}

impl View {
    /// The page. `mark` names the moment that it shows.
    pub(super) fn render(&self, mark: &str) -> Markup {
        let host = &self.status.host;
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { "hotmerge: " (self.summary()) }
                    link rel="icon" href=(ICON);
                    style { (PreEscaped(STYLE)) }
                    script type="module" { (PreEscaped(SCRIPT)) }
                }
                body {
                    a.skip href="#plugins" { "Skip to the plugins" }
                    header {
                        h1 { "hotmerge" }
                        p { (text(&host.version)) " on " (text(&host.target)) ", process " (host.pid) }
                        p #live role="status" { "Reload the page for newer figures." }
                    }
                    main data-mark=(mark) {
                        p.summary { (self.summary()) ", as of " (time(&format!("{:.0}", self.now))) }
                        (problems(&self.status.problems))
                        (self.plugins())
                        (self.reloads())
                        (self.host())
                    }
                }
            }
        }
    }

    /// In one sentence.
    fn summary(&self) -> String {
        let plugins = &self.status.plugins;
        let bad = plugins.iter().filter(|it| it.state == PluginState::Error);
        let active = plugins.iter().filter(|it| it.hash.is_some());
        let mut summary = format!(
            "{}, {} active",
            count(plugins.len() as u64, "plugin"),
            active.count()
        );
        for (number, what) in [
            (bad.count(), "in error"),
            (self.status.problems.len(), "unusable in the directory"),
        ] {
            if number > 0 {
                summary.push_str(&format!(", {number} {what}"));
            }
        }
        summary
    }

    fn plugins(&self) -> Markup {
        let all = &self.status.plugins;
        html! {
            section aria-labelledby="plugins" {
                h2 #plugins { "Plugins" }
                @if all.is_empty() {
                    p { "There are none in " code { (text(&self.status.host.plugin_dir.display().to_string())) } "." }
                } @else {
                    (scrollable("plugins", html! {
                        table {
                            caption { "State, version and use of each plugin. Latencies are since the host's start." }
                            thead { tr {
                                @for heading in [
                                    "Plugin", "State", "Version", "Generation", "Hash", "Isolation",
                                ] { th scope="col" { (heading) } }
                                @for heading in [
                                    "Memory", "CPU", "Restarts", "Calls", "Failed", "In flight", "Median", "99 %",
                                ] { th.number scope="col" { (heading) } }
                            } }
                            tbody {
                                @for plugin in all.iter().take(ROWS) { (self.plugin(plugin)) }
                            }
                        }
                    }))
                    (left_out(all.len(), "plugins"))
                }
            }
        }
    }

    fn plugin(&self, plugin: &PluginStatus) -> Markup {
        let figures = &self.figures.plugins;
        let own = figures.iter().find(|it| it.plugin.as_str() == plugin.name);
        let worker = plugin.worker.as_ref();
        let notes = notes(plugin);
        let rows = if notes.is_empty() { 1 } else { 2 };
        let percentile = |share| own.and_then(|own| figure::percentile(&own.latency, share));
        html! {
            tr {
                th scope="row" rowspan=(rows) { (text(&plugin.name)) }
                td { (state(plugin)) }
                td { (optional(plugin.version.as_deref())) }
                td { (plugin.generation) }
                td { (hash(plugin.hash.as_ref())) }
                td { (isolation(plugin)) }
                td.number { (figure::or_dash(worker.and_then(|it| it.memory_bytes).map(figure::mebibytes))) }
                td.number { (figure::or_dash(worker.and_then(|it| it.cpu_ms).map(figure::seconds))) }
                td.number { (plugin.restarts) }
                td.number { (plugin.calls) }
                td.number { (plugin.calls_failed) }
                td.number { (figure::or_dash(own.map(in_flight))) }
                @for share in [0.5, 0.99] {
                    td.number { (figure::or_dash(percentile(share))) }
                }
            }
            @if !notes.is_empty() {
                tr { td.notes colspan="13" { ul { @for note in &notes { li { (text(note)) } } } } }
            }
        }
    }

    fn reloads(&self) -> Markup {
        let changes = &self.changes;
        html! {
            section aria-labelledby="reloads" {
                h2 #reloads { "Reloads" }
                @if changes.is_empty() {
                    p { "Nothing has changed since the host's start." }
                } @else {
                    (timeline::draw(changes))
                    (scrollable("reloads", html! {
                        table {
                            caption { "The last " (count(changes.len() as u64, "change")) ", newest first" }
                            thead { tr {
                                @for heading in ["Time", "Plugin", "Result", "Version", "Generation", "Hash", "Cause"] {
                                    th scope="col" { (heading) }
                                }
                                @for heading in ["Pause of calls", "Took"] { th.number scope="col" { (heading) } }
                            } }
                            tbody { @for change in changes.iter().rev() { (row(change)) } }
                        }
                    }))
                }
            }
        }
    }

    fn host(&self) -> Markup {
        let host = &self.status.host;
        html! {
            section aria-labelledby="host" {
                h2 #host { "Host" }
                dl {
                    (fact("Started", time(&host.started)))
                    (fact("Contract with plugins", html! { "ABI " (text(&host.abi)) }))
                    (fact("Plugin directory", html! { code { (text(&host.plugin_dir.display().to_string())) } }))
                    @if let Some(dir) = &host.state_dir {
                        (fact("State directory", html! { code { (text(&dir.display().to_string())) } }))
                    }
                    (fact("Sandbox", sandbox(host)))
                    (fact("Limits of workers", html! { (text(&host.limits)) }))
                    (fact("Changes are noticed by", html! { (text(&host.watch)) }))
                    (fact("Scans of the directory", scans(host)))
                    @if let Some(door) = &host.door { (fact("Requests", requests(door))) }
                    (fact("Configuration", configuration(&host.config)))
                    @for (number, what) in [
                        (host.retained, "Old versions that could not be unmapped"),
                        (host.stuck, "Old versions stuck in teardown"),
                        (host.overdue, "Drains that took too long"),
                        (host.log_dropped, "Log records dropped"),
                        (host.replies_given_up, "Replies between plugins given up"),
                    ] {
                        @if number > 0 { (fact(what, html! { strong.bad { (number) } })) }
                    }
                    @if let Some(failure) = &host.store_failure {
                        (fact("Not written down", html! {
                            strong.bad { (text(&failure.reason)) } " since " (time(&failure.since))
                        }))
                    }
                }
                (watchers(&host.watchers))
            }
        }
    }
}

/// A table in a box that a keyboard can scroll, under the heading with this id.
fn scrollable(heading: &str, table: Markup) -> Markup {
    html! { div.scroll role="region" aria-labelledby=(heading) tabindex="0" { (table) } }
}

fn left_out(all: usize, what: &str) -> Markup {
    html! {
        @if let Some(more @ 1..) = all.checked_sub(ROWS) {
            p { (more) " more " (what) " are left out; " code { "/status" } " has all." }
        }
    }
}

fn problems(problems: &[Problem]) -> Markup {
    html! {
        @if !problems.is_empty() {
            section aria-labelledby="problems" {
                h2 #problems { "Problems" }
                (scrollable("problems", html! {
                    table {
                        caption { "What in the plugin directory cannot be used" }
                        thead { tr { th scope="col" { "Package" } th scope="col" { "Reason" } } }
                        tbody {
                            @for problem in problems.iter().take(ROWS) {
                                tr {
                                    th scope="row" {
                                        @if problem.package.is_empty() { "(the directory itself)" }
                                        @else { (text(&problem.package)) }
                                    }
                                    td.notes { (text(&problem.reason)) }
                                }
                            }
                        }
                    }
                }))
                (left_out(problems.len(), "problems"))
            }
        }
    }
}

/// Its class sets the colour; the word alone suffices.
fn state(plugin: &PluginStatus) -> Markup {
    let class = match plugin.state {
        PluginState::Active => "good",
        PluginState::Error => "bad",
        PluginState::Idle => "plain",
        PluginState::Detecting | PluginState::Unloading | PluginState::Reloading => "passing",
    };
    html! {
        span.state.(class) { (plugin.state.to_string()) }
        @if let Some(stage) = plugin.stage { " " (stage.to_string()) }
    }
}

fn isolation(plugin: &PluginStatus) -> Markup {
    let degraded = plugin
        .worker
        .as_ref()
        .is_some_and(|it| !it.degraded.is_empty());
    html! {
        (optional(plugin.isolation.as_deref()))
        @if degraded { " " span.state.passing { "degraded" } }
    }
}

fn in_flight(figures: &PluginFigures) -> String {
    figures.in_flight.to_string()
}

/// Notes on a plugin, except for what has a column.
fn notes(plugin: &PluginStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if plugin.state == PluginState::Error && plugin.refused.is_none() {
        notes.push(plugin.reason.clone());
    }
    if let Some(refused) = &plugin.refused {
        notes.push(format!(
            "refused {}: {}",
            refused.hash.short(),
            refused.reason
        ));
    }
    if let Some(failure) = &plugin.last_failure {
        notes.push(format!("at {} it {failure}", failure.time));
    }
    if let Some(canary) = &plugin.canary {
        let calls = count(canary.calls, "call");
        notes.push(format!(
            "canary {}: {calls}, {} failed",
            canary.version, canary.failed
        ));
    }
    notes.extend(plugin.waiting.iter().cloned());
    if plugin.pinned {
        notes.push("pinned".to_owned());
    }
    if let Some(hash) = &plugin.rolled_back {
        notes.push(format!("{} was rolled back", hash.short()));
    }
    if plugin.outdated {
        notes.push("runs with an earlier configuration than the one in force".to_owned());
    }
    if !plugin.ending.is_empty() {
        let states: Vec<_> = plugin.ending.iter().map(|old| old.state.as_str()).collect();
        notes.push(format!("old versions: {}", states.join(", ")));
    }
    if !plugin.not_granted.is_empty() {
        let requested = plugin.not_granted.join(", ");
        notes.push(format!("requested but not granted: {requested}"));
    }
    notes
}

fn row(change: &Change) -> Markup {
    let report = &change.report;
    let version = report.version.as_ref().map(ToString::to_string);
    let rows = if report.reason.is_some() { 2 } else { 1 };
    html! {
        tr {
            td rowspan=(rows) { (time(&change.time)) }
            th scope="row" rowspan=(rows) { (text(report.plugin.as_str())) }
            td { span.result { (timeline::shape(report.action)) " " (report.action.to_string()) } }
            td { (optional(version.as_deref())) }
            td { (figure::or_dash(report.generation)) }
            td { (hash(report.hash.as_ref())) }
            td { (text(&change.cause)) }
            td.number { (figure::or_dash(report.pause_ms.map(Milliseconds))) }
            td.number { (Milliseconds(report.took_ms)) }
        }
        @if let Some(reason) = &report.reason { tr { td.notes colspan="7" { (text(reason)) } } }
    }
}

fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn sandbox(host: &HostStatus) -> Markup {
    html! {
        @if host.degraded.is_empty() {
            "complete"
        } @else {
            strong.bad { "degraded" }
            ul { @for part in &host.degraded { li { (text(part)) } } }
        }
    }
}

fn scans(host: &HostStatus) -> Markup {
    html! {
        (host.rescans) ", of them " (host.full_looks) " of all packages"
        @if let Some(last) = &host.last_look { ", last at " (time(last)) }
    }
}

fn requests(door: &DoorStatus) -> Markup {
    html! {
        (door.requests) " on " (count(door.connections, "connection")) ", " (door.open) " of them open; "
        (door.denied) " refused for lack of a role, " (door.busy) " for lack of room; "
        (door.closed) " closed to make room"
    }
}

fn configuration(config: &ConfigStatus) -> Markup {
    html! {
        @match &config.file {
            Some(file) => code { (text(&file.display().to_string())) },
            None => "no file",
        }
        @if !config.since.is_empty() { ", as of " (time(&config.since)) }
        @for change in &config.needs_restart {
            br;
            code { (text(&change.key)) } " waits for a restart of the host"
        }
        @if let Some(refused) = &config.refused {
            br;
            strong.bad { "refused" } " at " (time(&refused.time)) ": " (text(&refused.reason))
        }
    }
}

fn watchers(watchers: &[WatcherStatus]) -> Markup {
    html! {
        @if !watchers.is_empty() {
            (scrollable("host", html! {
                table {
                    caption { "Watchers of the plugin directory" }
                    thead { tr {
                        th scope="col" { "Watcher" }
                        th scope="col" { "Scope" }
                        @for heading in ["Directories", "Events", "Overflows"] {
                            th.number scope="col" { (heading) }
                        }
                        th scope="col" { "Failure" }
                    } }
                    tbody {
                        @for watcher in watchers {
                            tr {
                                th scope="row" { (text(&watcher.name)) }
                                td { (text(&watcher.scope)) }
                                td.number { (watcher.directories) }
                                td.number { (watcher.events) }
                                td.number { (watcher.overflows) }
                                td.notes { (watcher.failure.as_deref().map(text).unwrap_or_default()) }
                            }
                        }
                    }
                }
            }))
        }
    }
}

/// A moment, as RFC 3339 in the attribute and without its `T` for people.
fn time(moment: &str) -> Markup {
    let moment = text(moment);
    html! { time datetime=(moment) { (moment.replacen('T', " ", 1)) } }
}

fn optional(said: Option<&str>) -> String {
    figure::or_dash(said.map(text))
}

/// Its beginning, and all of it in a tooltip.
fn hash(hash: Option<&Digest>) -> Markup {
    html! {
        @match hash {
            Some(hash) => code title=(hash.to_string()) { (hash.short()) },
            None => "–",
        }
    }
}

#[cfg(test)]
mod tests;
