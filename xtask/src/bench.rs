//! `bench`: what hotmerge costs, beside floors and peers measured in the same run.

use anyhow::{Result, bail};

use crate::{cargo::Cargo, exit};

/// Measure what hotmerge costs
///
/// Builds the benchmarks with optimisations and runs them. With --json, one object a line:
/// bench, unit, value and, where there is one, floor or peer and ratio. Quote ratios: the
/// figures of one machine say little about another.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only these: call, reload, switch, rescan, driver, worker
    #[arg(value_name = "BENCH")]
    benches: Vec<String>,
    /// Write one JSON object a line
    #[arg(long)]
    json: bool,
    /// How often to measure each; medians are told
    #[arg(long, default_value_t = 41, value_name = "N")]
    rounds: usize,
}

/// Runs the command.
///
/// # Errors
/// If the benchmarks do not build or do not run.
pub fn run(args: &Args) -> Result<u8> {
    let mut command = Cargo::locate(None)?.command();
    command
        .args(["run", "--quiet", "--release", "--package", "hotmerge-bench"])
        .args(["--", "--rounds"])
        .arg(args.rounds.to_string())
        .args(args.json.then_some("--json"))
        .args(&args.benches);
    if !command.status()?.success() {
        bail!("the benchmarks failed");
    }
    Ok(exit::OK)
}
