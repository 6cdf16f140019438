//! What `hotmerge top` knows, and what keys and answers change of it.
//!
//! Absent on purpose: the terminal and the host.

use std::{cmp::Ordering, collections::HashMap, time::Instant};

use hotmerge_meta::control::{PluginStatus, Status, Transition};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::question::{Answer, Question};
use crate::exit::CommandError;

/// A column, by which the table may be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Plugin,
    State,
    Version,
    Generation,
    Hash,
    Isolation,
    Memory,
    Cpu,
    Restarts,
    Calls,
    Rate,
    Failed,
}

impl Column {
    /// Every column with its heading and width, in order.
    pub(super) const ALL: [(Self, &'static str, u16); 12] = [
        (Self::Plugin, "PLUGIN", 20),
        (Self::State, "STATE", 22),
        (Self::Version, "VERSION", 10),
        (Self::Generation, "GEN", 5),
        (Self::Hash, "HASH", 12),
        (Self::Isolation, "ISOLATION", 9),
        (Self::Memory, "MEMORY", 11),
        (Self::Cpu, "CPU %", 6),
        (Self::Restarts, "RESTARTS", 8),
        (Self::Calls, "CALLS", 10),
        (Self::Rate, "CALLS/S", 9),
        (Self::Failed, "FAILED", 8),
    ];

    fn place(self) -> usize {
        let found = Self::ALL.iter().position(|(column, ..)| *column == self);
        found.unwrap_or_default()
    }

    /// Whether the largest values come first.
    fn is_amount(self) -> bool {
        self.place() >= Self::Memory.place()
    }
}

/// What to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    /// Something is shown that the host was not asked for yet.
    AskNow,
    End,
}

/// A plugin, and what it did from the status before to this one.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) plugin: PluginStatus,
    /// Calls per second.
    pub(super) rate: Option<f64>,
    /// Of one processor, in percent.
    pub(super) cpu: Option<f64>,
}

/// One plugin alone.
#[derive(Debug)]
pub(super) struct Detail {
    pub(super) name: String,
    /// Oldest first; none until the host has answered.
    pub(super) history: Option<Vec<Transition>>,
    /// How many of the newest are scrolled away.
    pub(super) skipped: usize,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct State {
    pub(super) has_colours: bool,
    pub(super) status: Option<Status>,
    /// In the order of the table.
    pub(super) rows: Vec<Row>,
    at: Option<Instant>,
    pub(super) sort: Column,
    pub(super) is_reversed: bool,
    selected: Option<String>,
    pub(super) detail: Option<Detail>,
    /// Why what is shown is old.
    pub(super) failure: Option<String>,
}

impl State {
    pub(super) fn new(has_colours: bool) -> Self {
        Self {
            has_colours,
            status: None,
            rows: Vec::new(),
            at: None,
            sort: Column::Plugin,
            is_reversed: false,
            selected: None,
            detail: None,
            failure: None,
        }
    }

    /// What the host is to be asked.
    pub(super) fn question(&self) -> Question {
        self.detail.as_ref()?.name.parse().ok()
    }

    /// The line of the table that is selected.
    pub(super) fn selected(&self) -> usize {
        let name = self.selected.as_deref();
        let found = self
            .rows
            .iter()
            .position(|row| Some(row.plugin.name.as_str()) == name);
        found.unwrap_or_default()
    }

    /// Takes an answer that came at a moment.
    pub(super) fn take(
        &mut self,
        Answer {
            mut status,
            history,
        }: Answer,
        now: Instant,
    ) {
        let seconds = self
            .at
            .map(|at| now.saturating_duration_since(at).as_secs_f64());
        let before: HashMap<_, _> = self
            .rows
            .drain(..)
            .map(|row| (row.plugin.name.clone(), row.plugin))
            .collect();
        self.rows = std::mem::take(&mut status.plugins)
            .into_iter()
            .map(|plugin| Row::of(plugin, &before, seconds))
            .collect();
        self.at = Some(now);
        self.status = Some(status);
        self.failure = None;
        if let (Some(detail), Some((name, history))) = (&mut self.detail, history)
            && detail.name == name.as_str()
        {
            detail.history = Some(history);
        }
        self.order();
    }

    /// Notes that the host did not answer.
    pub(super) fn fail(&mut self, failure: &CommandError) {
        self.failure = Some(failure.to_string());
    }

    fn order(&mut self) {
        let (sort, is_reversed) = (self.sort, self.is_reversed != self.sort.is_amount());
        self.rows.sort_by(|a, b| {
            let order = a.compare(b, sort);
            let order = if is_reversed { order.reverse() } else { order };
            order.then_with(|| a.plugin.name.cmp(&b.plugin.name))
        });
    }

    /// Does what a key stands for.
    pub(super) fn press(&mut self, key: KeyEvent) -> Next {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('q') => return Next::End,
            KeyCode::Char('c' | 'd') if is_control => return Next::End,
            KeyCode::Esc | KeyCode::Backspace if self.detail.is_some() => self.detail = None,
            KeyCode::Esc => return Next::End,
            KeyCode::Enter if self.detail.is_none() => return self.open(),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-10),
            KeyCode::PageDown => self.step(10),
            KeyCode::Home => self.step(isize::MIN),
            KeyCode::End => self.step(isize::MAX),
            KeyCode::Left | KeyCode::Char('<') => self.sort_by(-1),
            KeyCode::Right | KeyCode::Char('>') => self.sort_by(1),
            KeyCode::Char('r') => {
                self.is_reversed = !self.is_reversed;
                self.order();
            }
            _ => {}
        }
        Next::GoOn
    }

    fn open(&mut self) -> Next {
        let Some(row) = self.rows.get(self.selected()) else {
            return Next::GoOn;
        };
        self.detail = Some(Detail {
            name: row.plugin.name.clone(),
            history: None,
            skipped: 0,
        });
        Next::AskNow
    }

    /// Goes so many lines down.
    fn step(&mut self, lines: isize) {
        if let Some(detail) = &mut self.detail {
            let last = detail
                .history
                .as_ref()
                .map_or(0, Vec::len)
                .saturating_sub(1);
            detail.skipped = detail.skipped.saturating_add_signed(lines).min(last);
            return;
        }
        let last = self.rows.len().saturating_sub(1);
        let line = self.selected().saturating_add_signed(lines).min(last);
        self.selected = self.rows.get(line).map(|row| row.plugin.name.clone());
    }

    fn sort_by(&mut self, columns: isize) {
        let last = Column::ALL.len() - 1;
        let place = self.sort.place().saturating_add_signed(columns).min(last);
        self.sort = Column::ALL[place].0;
        self.order();
    }
}

impl Row {
    fn of(
        plugin: PluginStatus,
        before: &HashMap<String, PluginStatus>,
        seconds: Option<f64>,
    ) -> Self {
        let before = before.get(&plugin.name);
        let seconds = seconds.filter(|seconds| *seconds > 0.0);
        let per_second = |now: u64, before: u64| Some(now.checked_sub(before)? as f64 / seconds?);
        let cpu = |of: &PluginStatus| {
            let worker = of.worker.as_ref()?;
            Some((worker.pid?, worker.cpu_ms?))
        };
        let rate = before.and_then(|before| per_second(plugin.calls, before.calls));
        let used = before.and_then(|before| {
            let ((pid, now), (old, before)) = (cpu(&plugin)?, cpu(before)?);
            // Another process counts anew.
            per_second(now, before).filter(|_| pid == old)
        });
        Self {
            rate,
            cpu: used.map(|ms_per_second| ms_per_second / 10.0),
            plugin,
        }
    }

    pub(super) fn memory(&self) -> Option<u64> {
        self.plugin.worker.as_ref()?.memory_bytes
    }

    fn compare(&self, other: &Self, by: Column) -> Ordering {
        let (a, b) = (&self.plugin, &other.plugin);
        let amounts =
            |a: Option<f64>, b: Option<f64>| a.unwrap_or(-1.0).total_cmp(&b.unwrap_or(-1.0));
        match by {
            Column::Plugin => a.name.cmp(&b.name),
            Column::State => a.state.to_string().cmp(&b.state.to_string()),
            Column::Version => a.version.cmp(&b.version),
            Column::Generation => a.generation.cmp(&b.generation),
            Column::Hash => a
                .hash
                .map(|it| it.short())
                .cmp(&b.hash.map(|it| it.short())),
            Column::Isolation => a.isolation.cmp(&b.isolation),
            Column::Memory => self.memory().cmp(&other.memory()),
            Column::Cpu => amounts(self.cpu, other.cpu),
            Column::Restarts => a.restarts.cmp(&b.restarts),
            Column::Calls => a.calls.cmp(&b.calls),
            Column::Rate => amounts(self.rate, other.rate),
            Column::Failed => a.calls_failed.cmp(&b.calls_failed),
        }
    }
}
