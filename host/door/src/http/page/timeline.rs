//! The last changes of plugins over time, as a drawing.
//!
//! Every kind of result has a shape of its own, so that nobody needs colours to tell them apart. The table
//! below the drawing says the same in words.
//!
//! Absent on purpose: styles, which the page's style sheet has.

use std::collections::BTreeMap;

use hotmerge_meta::control::{Action, Change};
use jiff::Timestamp;
use maud::{Markup, html};

use super::{
    figure::{self, Milliseconds},
    text::text,
};

/// The most plugins that have a line.
const LANES: usize = 16;

/// The most characters of a plugin's name beside its line.
const NAME: usize = 20;

/// Lengths in the drawing's units.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 160.0;
const RIGHT: f64 = 915.0;
const LANE: f64 = 24.0;
const TOP: f64 = 8.0;
const PAUSES: f64 = 56.0;
const GAP: f64 = 22.0;

/// The pauses between which the scale lies, in milliseconds.
const SHORTEST: f64 = 0.1;
const LONGEST: f64 = 10_000.0;

/// Steps of the scale of time, in seconds.
const STEPS: [i64; 20] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
    172_800, 604_800,
];

/// The kinds of results, as the legend lists them.
const KINDS: [Action; 5] = [
    Action::Loaded,
    Action::Reloaded,
    Action::Trying,
    Action::Refused,
    Action::Removed,
];

/// The time that the drawing covers, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: i64,
    to: i64,
}

impl Span {
    /// The time of these changes, at least some seconds.
    fn of(changes: &[(i64, &Change)]) -> Option<Self> {
        let times = || changes.iter().map(|(time, _)| *time);
        let (from, to) = (times().min()?, times().max()?);
        Some(Self {
            from,
            to: to.max(from + 10_000),
        })
    }

    fn x(self, time: i64) -> f64 {
        let share = (time - self.from) as f64 / (self.to - self.from) as f64;
        LEFT + share * (RIGHT - LEFT)
    }

    /// At most seven moments that are round, and how they are written.
    fn ticks(self) -> Vec<(f64, String)> {
        let seconds = (self.to - self.from) / 1000;
        let fits = |step: &&i64| seconds / **step < 7;
        let step = STEPS
            .iter()
            .find(fits)
            .copied()
            .unwrap_or(seconds / 6)
            .max(1);
        let format = match step {
            86_400.. => "%m-%d",
            60.. => "%H:%M",
            _ => "%H:%M:%S",
        };
        let first = self.from.div_euclid(1000).div_euclid(step) * step;
        let moments = (first..=self.to / 1000).step_by(usize::try_from(step).unwrap_or(1));
        let seen = moments.filter(|second| second * 1000 >= self.from);
        seen.filter_map(|second| {
            let moment = Timestamp::from_second(second).ok()?;
            Some((self.x(second * 1000), moment.strftime(format).to_string()))
        })
        .collect()
    }
}

/// Draws the changes, of which there is at least one.
pub(super) fn draw(changes: &[Change]) -> Markup {
    let timed: Vec<_> = changes
        .iter()
        .filter_map(|it| Some((it.time.parse::<Timestamp>().ok()?.as_millisecond(), it)))
        .collect();
    let Some(span) = Span::of(&timed) else {
        return html! {};
    };
    // Those that changed last come first.
    let mut lanes: Vec<&str> = Vec::new();
    for (_, change) in timed.iter().rev() {
        let name = change.report.plugin.as_str();
        if !lanes.contains(&name) {
            lanes.push(name);
        }
    }
    let more = lanes.len().saturating_sub(LANES);
    lanes.truncate(LANES);
    let lane_of: BTreeMap<_, _> = lanes
        .iter()
        .enumerate()
        .map(|(lane, name)| (*name, lane))
        .collect();
    let bottom = TOP + lanes.len() as f64 * LANE;
    let paused = timed.iter().any(|(_, it)| it.report.pause_ms.is_some());
    let height = bottom + GAP + if paused { PAUSES + GAP } else { 0.0 };
    html! {
        figure {
            figcaption { (legend()) }
            div.scroll role="region" aria-label="Timeline" tabindex="0" {
                svg.timeline viewBox=(format!("0 0 {WIDTH} {height}")) role="img"
                    aria-labelledby="timeline-title" aria-describedby="timeline-description" {
                    title #timeline-title { "Timeline of the last changes" }
                    desc #timeline-description {
                        "One line per plugin, one mark per change. The table below has the same in words."
                    }
                    @for (x, label) in span.ticks() {
                        line.grid x1=(x) x2=(x) y1=(TOP) y2=(bottom) {}
                        text.tick x=(x) y=(bottom + 14.0) text-anchor="middle" { (label) }
                    }
                    @for (lane, name) in lanes.iter().enumerate() { (line(lane, name)) }
                    @for (time, change) in &timed {
                        @if let Some(lane) = lane_of.get(change.report.plugin.as_str()) {
                            (mark(span.x(*time), middle(*lane), change))
                        }
                    }
                    @if paused { (pauses(bottom + GAP, span, &timed)) }
                }
            }
            @if more > 0 { p { "The drawing leaves out " (more) " more plugins; the table has them." } }
            @if !paused { p { "No change made calls wait." } }
        }
    }
}

fn middle(lane: usize) -> f64 {
    TOP + (lane as f64 + 0.5) * LANE
}

fn line(lane: usize, name: &str) -> Markup {
    let y = middle(lane);
    let mut short: String = name.chars().take(NAME).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    html! {
        line.lane x1=(LEFT) x2=(RIGHT) y1=(y) y2=(y) {}
        text.name x=(LEFT - 12.0) y=(y + 4.0) text-anchor="end" { (text(&short)) }
    }
}

fn mark(x: f64, y: f64, change: &Change) -> Markup {
    html! {
        g.mark transform=(format!("translate({x:.1} {y:.1})")) {
            title { (sentence(change)) }
            (outline(change.report.action))
        }
    }
}

/// The meaning of a mark, for its tooltip.
fn sentence(change: &Change) -> String {
    let report = &change.report;
    let mut sentence = format!("{} {}: {}", change.time, report.plugin, report.action);
    if let Some(version) = &report.version {
        sentence.push_str(&format!(" {version}"));
    }
    if let Some(pause) = report.pause_ms {
        sentence.push_str(&format!(", calls waited {}", Milliseconds(pause)));
    }
    if let Some(reason) = &report.reason {
        sentence.push_str(&format!(": {reason}"));
    }
    text(&sentence)
}

/// How long calls waited, as one bar per change on a logarithmic scale.
fn pauses(top: f64, span: Span, changes: &[(i64, &Change)]) -> Markup {
    let bottom = top + PAUSES;
    let y = |ms: f64| {
        let share = (ms.clamp(SHORTEST, LONGEST) / SHORTEST).log10() / (LONGEST / SHORTEST).log10();
        bottom - share * PAUSES
    };
    html! {
        text.name x=(LEFT - 12.0) y=(top - 4.0) text-anchor="end" { "pause of calls" }
        @for ms in [SHORTEST, 10.0, 1000.0] {
            line.grid x1=(LEFT) x2=(RIGHT) y1=(y(ms)) y2=(y(ms)) {}
            text.tick x=(LEFT - 12.0) y=(y(ms) + 4.0) text-anchor="end" { (Milliseconds(ms)) }
        }
        @for (time, change) in changes {
            @if let Some(ms) = change.report.pause_ms {
                line.pause x1=(figure::tenths(span.x(*time))) x2=(figure::tenths(span.x(*time)))
                    y1=(figure::tenths(bottom)) y2=(figure::tenths(y(ms) - 1.0)) {
                    title { (sentence(change)) }
                }
            }
        }
    }
}

fn legend() -> Markup {
    html! {
        ul.legend {
            @for action in KINDS { li { (shape(action)) " " (action.to_string()) } }
        }
    }
}

/// The mark of a result, in a line of text.
pub(super) fn shape(action: Action) -> Markup {
    html! { svg.shape viewBox="-8 -8 16 16" aria-hidden="true" { (outline(action)) } }
}

/// The mark of a result, around the origin.
fn outline(action: Action) -> Markup {
    html! {
        @match action {
            Action::Loaded => circle.hollow.good r="5" {},
            Action::Reloaded => circle.full.good r="5" {},
            Action::Trying => path.full.passing d="M0-6 6 5H-6Z" {},
            Action::Refused => path.stroke.bad d="M-5-5 5 5M5-5-5 5" {},
            Action::Removed => rect.hollow.plain x="-5" y="-5" width="10" height="10" {},
            Action::Unchanged => circle.full.plain r="2" {},
        }
    }
}
