//! What callers notice of a switch: the longest call around each, with and without state
//! that changes hands, beside the longest of as many calls while nothing happens. And a
//! hundred changes at once.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
};

use anyhow::Context as _;
use hotmerge_daemon::{Call, Config, Host, Plugin, Reply, config::Isolation, context};
use hotmerge_meta::control::ReloadParams;
use tempfile::TempDir;

use crate::{
    figure::{Figure, Figures, Pairs, micros, time},
    subject::{Subject, host, stage},
};

/// How many plugins change at once.
const MANY: usize = 100;

pub(crate) fn run(subject: &Subject, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    for (what, state) in [("without state", false), ("with state", true)] {
        let pauses = pauses(subject, rounds, state)?;
        for (figure, at) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            figures.tell(&Figure {
                bench: format!("longest call at a switch {what}, {figure}"),
                unit: "µs",
                value: quantile(&pauses.at_switch, at),
                peer: Some(quantile(&pauses.at_rest, at)),
                ..Figure::default()
            })?;
        }
        if state {
            figures.tell(&Figure {
                bench: "time that the gate was shut, median".to_owned(),
                unit: "µs",
                value: quantile(&pauses.shut, 0.5),
                ..Figure::default()
            })?;
        }
    }
    many(subject, rounds, figures)
}

#[derive(Default)]
struct Pauses {
    at_switch: Vec<f64>,
    at_rest: Vec<f64>,
    shut: Vec<f64>,
}

fn pauses(subject: &Subject, rounds: usize, state: bool) -> anyhow::Result<Pauses> {
    let dir = TempDir::new()?;
    let plugins = dir.path().join("plugins");
    fs::create_dir(&plugins)?;
    stage(&plugins, "subject", &subject.variants[0])?;
    let host = configured(dir.path(), &plugins, state)?;
    let plugin = host.plugin("subject").context("the plugin is not loaded")?;
    let longest = Arc::new(Longest::new());
    let caller = {
        let longest = Arc::clone(&longest);
        thread::spawn(move || longest.call(&plugin))
    };
    let mut pauses = Pauses::default();
    for round in 0..rounds.max(100) {
        let params = ReloadParams {
            // The host's own clock may be faster than the request.
            since: Some(host.position()),
            ..ReloadParams::default()
        };
        stage(&plugins, "subject", &subject.variants[(round + 1) % 2])?;
        longest.take();
        let before = longest.calls.load(Ordering::Acquire);
        let report = host.reload(&params);
        longest.let_pass(1);
        let calls = longest.calls.load(Ordering::Acquire) - before;
        pauses.at_switch.push(longest.take());
        anyhow::ensure!(report.plugins.len() == 1, "no reload: {report:?}");
        let shut = report.plugins[0].pause_ms.map(|ms| ms * 1e3);
        anyhow::ensure!(shut.is_some() == state, "no state went over: {report:?}");
        pauses.shut.extend(shut);
        longest.let_pass(calls);
        pauses.at_rest.push(longest.take());
    }
    longest.stop.store(true, Ordering::Relaxed);
    let failed = caller.join().unwrap_or(true);
    anyhow::ensure!(!failed, "a call failed");
    Ok(pauses)
}

fn configured(dir: &Path, plugins: &Path, state: bool) -> anyhow::Result<Host> {
    let path = dir.join("hotmerge.toml");
    fs::write(
        &path,
        format!("watch = false\n[plugin.subject.config]\nstate = {state}\n"),
    )?;
    let mut config = Config::read(&path)?;
    config.plugin_dir = Some(plugins.to_owned());
    config.isolation = Some(Isolation::Host);
    let host = Host::start(config)?;
    host.settle();
    Ok(host)
}

/// The longest call since somebody asked.
struct Longest {
    stop: AtomicBool,
    calls: AtomicU64,
    nanos: AtomicU64,
    /// The measuring thread, woken when so many calls have been made.
    measures: Thread,
    until: AtomicU64,
}

impl Longest {
    /// For the calling thread to ask.
    fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            measures: thread::current(),
            until: AtomicU64::new(u64::MAX),
        }
    }

    /// Calls until it is stopped; whether a call failed.
    fn call(&self, plugin: &Plugin) -> bool {
        let context = context(None);
        let mut reply = Reply::default();
        while !self.stop.load(Ordering::Relaxed) {
            let (took, outcome) =
                time(|| plugin.call(&Call::new(&context, "nothing", &[]), &mut reply));
            if outcome.is_err() {
                self.stop.store(true, Ordering::Relaxed);
                self.measures.unpark();
                return true;
            }
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.nanos.fetch_max(nanos, Ordering::Relaxed);
            let calls = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
            if calls >= self.until.load(Ordering::SeqCst) {
                self.until.store(u64::MAX, Ordering::SeqCst);
                self.measures.unpark();
            }
        }
        false
    }

    /// Waits for the end of so many calls, the one that is under way included.
    fn let_pass(&self, calls: u64) {
        let until = self.calls.load(Ordering::SeqCst) + calls;
        self.until.store(until, Ordering::SeqCst);
        while self.calls.load(Ordering::SeqCst) < until && !self.stop.load(Ordering::Relaxed) {
            thread::park();
        }
    }

    /// In microseconds; begins anew.
    fn take(&self) -> f64 {
        self.nanos.swap(0, Ordering::Relaxed) as f64 / 1e3
    }
}

fn quantile(values: &[f64], at: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let index = ((values.len() as f64 * at).ceil() as usize).saturating_sub(1);
    values.get(index).copied().unwrap_or_default()
}

/// A hundred changes at once, beside a hundred one after the other.
fn many(subject: &Subject, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let dir = TempDir::new()?;
    let stage_all = |round: usize| {
        (0..MANY).try_for_each(|index| {
            let variant = &subject.variants[round % 2];
            stage(dir.path(), &format!("subject{index}"), variant)
        })
    };
    stage_all(0)?;
    let host = host(dir.path())?;
    let mut pairs = Pairs::default();
    for round in 1..=rounds.min(11) {
        stage_all(2 * round + 1)?;
        let (together, report) = time(|| host.reload(&ReloadParams::default()));
        anyhow::ensure!(report.plugins.len() == MANY, "not all were reloaded");
        let mut apart = 0.0;
        for index in 0..MANY {
            let name = format!("subject{index}");
            stage(dir.path(), &name, &subject.variants[0])?;
            let (took, _) = time(|| host.reload(&ReloadParams::default()));
            apart += micros(took);
        }
        pairs.push(micros(together), apart);
    }
    let (value, peer, ratio) = pairs.medians();
    figures.tell(&Figure {
        bench: format!("reload of {MANY} plugins at once"),
        unit: "µs",
        value,
        peer: Some(peer),
        ratio: Some(ratio),
        ..Figure::default()
    })
}
