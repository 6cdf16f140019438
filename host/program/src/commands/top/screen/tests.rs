//! The terminal as it is drawn.

use std::time::{Duration, Instant};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::{Value, from_value, json};

use super::*;
use crate::commands::top::{Answer, state::Next};

const HASH: &str = "sha256:5f0c3f1b7d4e8a9260b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f50617";

fn plugin(name: &str, state: &str, calls: u64, memory: u64) -> Value {
    json!({
        "name": name, "version": "1.2.3", "hash": HASH, "state": state, "generation": 2,
        "reason": "the new version took over", "since": "2026-01-02T03:04:05.678Z",
        "isolation": "process", "package": name, "address": null, "calls": calls,
        "calls_failed": 3, "calls_panicked": 0, "retained": 0, "ending": [], "refused": null,
        "worker": { "pid": 7, "memory_bytes": memory, "cpu_ms": calls, "degraded": [], "log_dropped": 0 },
    })
}

fn answer(plugins: Value) -> Answer {
    let host = json!({
        "version": "0.1.0", "pid": 4711, "abi": "1.3", "target": "x86_64-unknown-linux-gnu",
        "plugin_dir": "/usr/lib/hotmerge/plugins", "started": "2026-01-02T03:00:00Z",
        "watch": "inotify", "rescans": 7, "position": 3, "retained": 0, "stuck": 0, "overdue": 0,
        "log_dropped": 0,
    });
    let problems = json!([{ "package": "odd", "reason": "odd" }]);
    let status = from_value(json!({ "host": host, "plugins": plugins, "problems": problems }));
    Answer {
        status: status.expect("it is a status"),
        history: None,
    }
}

/// A state with three plugins, a second after they were seen first.
fn state() -> State {
    let mut state = State::new(true);
    let began = Instant::now();
    let plugins = |more: u64| {
        json!([
            plugin("alpha", "active", 100 + more, 3 << 20),
            plugin("beta", "error", 500 + 50 * more, 2 << 20),
            plugin("gamma\u{1b}[2J\u{202e}", "reloading", 0, 9 << 20),
        ])
    };
    state.take(answer(plugins(0)), began);
    state.take(answer(plugins(10)), began + Duration::from_secs(1));
    state
}

fn terminal(state: &mut State, width: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, 12)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    terminal
}

fn press(state: &mut State, code: KeyCode) -> Next {
    state.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn names(state: &State) -> Vec<&str> {
    state.rows.iter().map(|row| &row.plugin.name[..4]).collect()
}

#[test]
fn the_table_has_a_line_per_plugin() {
    insta::assert_snapshot!(terminal(&mut state(), 142).backend());
}

#[test]
fn a_narrow_terminal_keeps_the_first_columns() {
    insta::assert_snapshot!(terminal(&mut state(), 50).backend());
}

#[test]
fn one_plugin_is_shown_with_its_history() {
    let mut state = state();
    assert_eq!(press(&mut state, KeyCode::Down), Next::GoOn);
    assert_eq!(press(&mut state, KeyCode::Enter), Next::AskNow);
    let asked = state.question().expect("it wants to know");
    assert_eq!(asked.as_str(), "beta");
    let step = |from: &str, to: &str, reason: &str| {
        json!({
            "time": "2026-01-02T03:04:05.678Z", "plugin": "beta", "old_version": null,
            "from": from, "to": to, "reason": reason,
        })
    };
    let history = json!([
        step("idle", "detecting", "a package appeared"),
        step("detecting", "active", "odd\u{1b}[31m\nnews"),
    ]);
    let mut more = answer(json!([plugin("beta", "error", 1000, 2 << 20)]));
    more.history = Some((asked, from_value(history).unwrap()));
    state.take(more, Instant::now());
    insta::assert_snapshot!(terminal(&mut state, 100).backend());
    press(&mut state, KeyCode::End);
    let shown = terminal(&mut state, 100).backend().to_string();
    assert!(
        !shown.contains("odd") && shown.contains("a package appeared"),
        "{shown}"
    );
    assert_eq!(press(&mut state, KeyCode::Esc), Next::GoOn);
    assert!(state.detail.is_none(), "back in the table");
    assert_eq!(press(&mut state, KeyCode::Esc), Next::End);
}

#[test]
fn every_column_sorts_both_ways() {
    let mut state = state();
    assert_eq!(names(&state), ["alph", "beta", "gamm"]);
    press(&mut state, KeyCode::Char('r'));
    assert_eq!(names(&state), ["gamm", "beta", "alph"]);
    press(&mut state, KeyCode::Char('r'));
    while state.sort != Column::Memory {
        press(&mut state, KeyCode::Right);
    }
    assert_eq!(
        names(&state),
        ["gamm", "alph", "beta"],
        "the largest comes first"
    );
    while state.sort != Column::Rate {
        press(&mut state, KeyCode::Char('>'));
    }
    assert_eq!(names(&state), ["beta", "alph", "gamm"]);
    for _ in Column::ALL {
        press(&mut state, KeyCode::Left);
    }
    assert_eq!(state.sort, Column::Plugin);
}

#[test]
fn the_selection_follows_its_plugin() {
    let mut state = state();
    press(&mut state, KeyCode::End);
    assert_eq!(state.selected(), 2);
    press(&mut state, KeyCode::Char('r'));
    assert_eq!(state.selected(), 0, "it is the same plugin");
    state.take(
        answer(json!([plugin("alpha", "active", 0, 0)])),
        Instant::now(),
    );
    assert_eq!(state.selected(), 0, "it is gone");
}

#[test]
fn without_colours_nothing_is_coloured() {
    let mut state = state();
    state.has_colours = false;
    let drawn = terminal(&mut state, 142);
    let cells = drawn.backend().buffer().content();
    assert!(
        cells
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
    state.has_colours = true;
    let drawn = terminal(&mut state, 142);
    let cells = drawn.backend().buffer().content();
    assert!(
        cells.iter().any(|cell| cell.fg == Color::Red),
        "with colours some are"
    );
}

#[test]
fn a_host_that_is_gone_is_reported() {
    let mut state = state();
    state.fail(&crate::exit::CommandError::text(4, "no host runs"));
    let shown = terminal(&mut state, 100).backend().to_string();
    assert!(
        shown.contains("no host runs") && shown.contains("alpha"),
        "{shown}"
    );
}
