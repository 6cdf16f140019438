//! `hotmerge top` on the terminal.
//!
//! Invariant: whatever others say is one line without orders to the terminal.
//!
//! Absent on purpose: changes of the state, except for what a drawing must remember.

use hotmerge_meta::{
    control::{PluginState, Transition},
    count, cut, plain,
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Cell, Paragraph, Row as TableRow, Table, TableState, Wrap},
};

use super::state::{Column, Detail, Row, State};
use crate::{
    commands::status::{meaning, mebibytes, notes},
    table::Meaning,
};

/// The longest text of others, in bytes.
const TEXT: usize = 512;

/// Blanks from one column to the next.
const GAP: u16 = 1;

const KEYS: &str = "↑↓ select  ←→ sort by  r reverse  Enter details  q quit";
const DETAIL_KEYS: &str = "↑↓ scroll  Esc back  q quit";

/// A text of others.
fn text(of: &str) -> String {
    let mut text = plain(of);
    cut(&mut text, TEXT);
    text
}

pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading(state)), head);
    let keys = match &state.detail {
        Some(detail) => {
            draw_detail(frame, body, state, detail);
            DETAIL_KEYS
        }
        None => {
            draw_table(frame, body, state);
            KEYS
        }
    };
    frame.render_widget(Line::styled(keys, Modifier::DIM), foot);
}

fn heading(state: &State) -> Text<'static> {
    let bold = Style::from(Modifier::BOLD);
    let Some(status) = &state.status else {
        return Text::from(
            state
                .failure
                .as_deref()
                .map_or("asking the host …".to_owned(), text),
        );
    };
    let host = &status.host;
    let first = Line::from(vec![
        Span::styled("hotmerge ", bold),
        Span::raw(text(&host.version)),
        Span::raw(format!(
            ", pid {}, up since {}, ",
            host.pid,
            text(&host.started)
        )),
        Span::raw(text(&host.plugin_dir.display().to_string())),
    ]);
    let of = |wanted: PluginState| {
        state
            .rows
            .iter()
            .filter(move |row| row.plugin.state == wanted)
            .count()
    };
    let mut second = vec![Span::raw(format!(
        "{}: {} active, {} reloading",
        count(state.rows.len() as u64, "plugin"),
        of(PluginState::Active),
        of(PluginState::Reloading),
    ))];
    let bad = [
        (of(PluginState::Error), "in error"),
        (status.problems.len(), "unusable in the directory"),
        (host.degraded.len(), "missing from the sandbox"),
    ];
    for (number, what) in bad.into_iter().filter(|(number, _)| *number > 0) {
        second.push(Span::styled(
            format!(", {number} {what}"),
            state.style(Meaning::Bad),
        ));
    }
    let mut lines = vec![first, Line::from(second)];
    if let Some(failure) = &state.failure {
        lines.push(Line::styled(text(failure), state.style(Meaning::Bad)));
    }
    Text::from(lines)
}

impl State {
    /// A colour that goes with a word, never alone; bold without colours.
    fn style(&self, meaning: Meaning) -> Style {
        let colour = match meaning {
            Meaning::Good => Color::Green,
            Meaning::Passing => Color::Yellow,
            Meaning::Bad => Color::Red,
            Meaning::Plain => return Style::new(),
        };
        match self.has_colours {
            true => Style::from(colour),
            false if matches!(meaning, Meaning::Bad) => Style::from(Modifier::BOLD),
            false => Style::new(),
        }
    }
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, state: &State) {
    if state.rows.is_empty() {
        let said = if state.status.is_some() {
            "no plugins"
        } else {
            ""
        };
        frame.render_widget(said, area);
        return;
    }
    let columns = fitting(area.width);
    let heading = columns.iter().map(|(column, heading, _)| {
        let is_sorted = *column == state.sort;
        let style = match is_sorted {
            true => Modifier::BOLD | Modifier::UNDERLINED,
            false => Modifier::BOLD,
        };
        Cell::from(*heading).style(style)
    });
    let rows = state.rows.iter().map(|row| {
        let cells = columns.iter().map(|(column, ..)| cell(state, row, *column));
        TableRow::new(cells)
    });
    let widths = columns
        .iter()
        .map(|(_, _, width)| Constraint::Length(*width));
    let table = Table::new(rows, widths)
        .column_spacing(GAP)
        .header(TableRow::new(heading))
        .row_highlight_style(Modifier::REVERSED);
    let mut selected = TableState::new().with_selected(state.selected());
    frame.render_stateful_widget(table, area, &mut selected);
}

/// The first columns, as many as are whole in this width, but at least one.
fn fitting(width: u16) -> &'static [(Column, &'static str, u16)] {
    let mut left = width + GAP;
    let fits = |(_, _, width): &&(Column, &str, u16)| {
        let rest = left.checked_sub(width + GAP);
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    let whole = Column::ALL.iter().take_while(fits).count();
    &Column::ALL[..whole.max(1)]
}

fn cell(state: &State, row: &Row, column: Column) -> Cell<'static> {
    let plugin = &row.plugin;
    let said = |said: Option<&str>| said.map_or("-".to_owned(), text);
    let figure =
        |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{figure:.1}"));
    let restarts = if plugin.restarts > 0 {
        Meaning::Passing
    } else {
        Meaning::Plain
    };
    let (text, meaning) = match column {
        Column::Plugin => (text(&plugin.name), Meaning::Plain),
        Column::State => {
            let stage = plugin
                .stage
                .map_or(String::new(), |stage| format!(" {stage}"));
            (format!("{}{stage}", plugin.state), meaning(plugin.state))
        }
        Column::Version => (said(plugin.version.as_deref()), Meaning::Plain),
        Column::Generation => (plugin.generation.to_string(), Meaning::Plain),
        Column::Hash => (
            said(plugin.hash.map(|hash| hash.short()).as_deref()),
            Meaning::Plain,
        ),
        Column::Isolation => (said(plugin.isolation.as_deref()), Meaning::Plain),
        Column::Memory => (said(row.memory().map(mebibytes).as_deref()), Meaning::Plain),
        Column::Cpu => (figure(row.cpu), Meaning::Plain),
        Column::Restarts => (plugin.restarts.to_string(), restarts),
        Column::Calls => (plugin.calls.to_string(), Meaning::Plain),
        Column::Rate => (figure(row.rate), Meaning::Plain),
        Column::Failed => (plugin.calls_failed.to_string(), Meaning::Plain),
    };
    Cell::from(text).style(state.style(meaning))
}

fn draw_detail(frame: &mut Frame<'_>, area: Rect, state: &State, detail: &Detail) {
    let mut lines = Vec::new();
    match state.rows.iter().find(|row| row.plugin.name == detail.name) {
        Some(row) => lines.extend(of_plugin(state, row)),
        None => lines.push(Line::from(format!(
            "{}: the host no longer knows it",
            text(&detail.name)
        ))),
    }
    lines.push(Line::default());
    lines.push(Line::styled("HISTORY, newest first", Modifier::BOLD));
    match &detail.history {
        None => lines.push(Line::from("asking the host …")),
        Some(history) => lines.extend(history.iter().rev().skip(detail.skipped).map(transition)),
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

fn of_plugin(state: &State, row: &Row) -> Vec<Line<'static>> {
    let plugin = &row.plugin;
    let mut first = vec![
        Span::styled(text(&plugin.name), Modifier::BOLD),
        Span::raw("  "),
    ];
    first.push(Span::styled(
        plugin.state.to_string(),
        state.style(meaning(plugin.state)),
    ));
    if let Some(since) = &plugin.since {
        first.push(Span::raw(format!(" since {}", text(since))));
    }
    if !plugin.reason.is_empty() {
        first.push(Span::raw(format!(": {}", text(&plugin.reason))));
    }
    let hash = plugin.hash.map_or("-".to_owned(), |hash| hash.to_string());
    let mut lines = vec![
        Line::from(first),
        Line::from(format!(
            "version {}, generation {}, {hash}",
            plugin.version.as_deref().map_or("-".to_owned(), text),
            plugin.generation
        )),
        Line::from(format!(
            "{}, {} failed, {}; isolation {}",
            count(plugin.calls, "call"),
            plugin.calls_failed,
            count(plugin.restarts, "restart"),
            plugin.isolation.as_deref().map_or("-".to_owned(), text),
        )),
    ];
    lines.extend(notes(plugin).iter().map(|note| Line::from(text(note))));
    lines
}

fn transition(it: &Transition) -> Line<'static> {
    let old = it.old_version.map_or(String::new(), |hash| {
        format!(" (old version {})", hash.short())
    });
    Line::from(format!(
        "{}  {} → {}{old}: {}",
        text(&it.time),
        text(&it.from),
        text(&it.to),
        text(&it.reason)
    ))
}

#[cfg(test)]
mod tests;
