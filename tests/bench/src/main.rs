//! What hotmerge costs. Every figure is measured beside its floor or its peer, in turns and
//! in the same run, because the machines are noisy and only ratios travel.
//!
//! Run it by `cargo xtask bench`.

use clap::Parser;

mod call;
mod driver;
mod figure;
mod http;
mod reload;
mod rescan;
mod subject;
mod switch;
mod watch;
mod worker;

use figure::Figures;
use subject::Subject;

/// Measure what hotmerge costs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these: call, reload, switch, rescan, watch, driver, worker, http
    #[arg(value_name = "BENCH")]
    benches: Vec<String>,
    /// Print one JSON object a figure
    #[arg(long)]
    json: bool,
    /// Rounds of each; reports medians
    #[arg(long, default_value_t = 41)]
    rounds: usize,
}

type Bench = fn(&Subject, usize, &mut Figures) -> anyhow::Result<()>;

const BENCHES: [(&str, Bench); 8] = [
    ("call", call::run),
    ("reload", reload::run),
    ("switch", switch::run),
    ("rescan", rescan::run),
    ("watch", watch::run),
    ("driver", driver::run),
    ("worker", worker::run),
    ("http", http::run),
];

fn main() -> anyhow::Result<()> {
    if let Some(result) = worker::peer::run() {
        return result;
    }
    let arguments = Arguments::parse();
    for name in &arguments.benches {
        anyhow::ensure!(
            BENCHES.iter().any(|(known, _)| known == name),
            "there is no bench `{name}`"
        );
    }
    let subject = Subject::build()?;
    let mut figures = Figures::new(arguments.json);
    for (name, bench) in BENCHES {
        if arguments.benches.is_empty() || arguments.benches.iter().any(|asked| asked == name) {
            bench(&subject, arguments.rounds, &mut figures)?;
        }
    }
    Ok(())
}
