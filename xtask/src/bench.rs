//! `bench`: measures performance, with floors and peers in the same run.

use anyhow::{Result, bail};

use crate::{cargo::Cargo, exit};

/// Measure the performance of hotmerge
///
/// Builds the benchmarks with optimisations and runs them. With --json, one object per line:
/// bench, unit, value and, where they exist, floor or peer and ratio. Quote ratios: absolute
/// figures of one machine say little about another.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Run only these: call, reload, switch, rescan, watch, driver, worker, http
    #[arg(value_name = "BENCH")]
    benches: Vec<String>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    /// Number of measurements per benchmark; reports the median
    #[arg(long, default_value_t = 41, value_name = "N")]
    rounds: usize,
}

/// Runs the command.
///
/// # Errors
/// If the benchmarks fail to build or run.
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
