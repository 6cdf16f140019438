//! `test`: runs all tests or one family, and installs what they need.
//!
//! Cargo runs the tests; this installs the tools they use, runs them family by family and adds
//! up the results. A test that cannot run on this machine writes the reason into its family's
//! file and counts as skipped, never as passed.

mod tally;
mod tools;

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use rustix::process::geteuid;

use self::tally::Tally;
use crate::{cargo::Cargo, exit, output};

/// Names the file where tests write why they were skipped, one line per test.
const SKIPPED: &str = "HOTMERGE_TEST_SKIPPED";

/// Run all tests, or one family of them
///
/// Installs the Debian packages that the tests need, or, without permission, lists the missing
/// ones.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Run only this family [default: all]
    family: Option<Family>,
    /// Arguments for the test programs, as after `cargo test --`
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Family {
    /// Unit tests of each crate
    Unit,
    /// All thread interleavings at the switch between versions, and a million random plugin
    /// life cycles
    Model,
    /// From a changed source to a reloaded plugin, with real processes
    Main,
    /// The life cycle of versions: drain, state, requirements, rollback, soak, kills
    Life,
    /// Hostile, crashing and unusual plugins, which must not affect honest ones
    Sandbox,
    /// Noticing changes: with every kind of watcher, at any rate, on every file system
    Watch,
    /// Plugins over HTTP: calls, access, limits, restarts, and the OpenAPI description
    Http,
    /// What plugin authors meet: the test kit, refusals, and what the sandbox says
    Author,
    /// Hosts inside programs in other languages, and plugins written in them
    Foreign,
    /// Metrics, log records and `hotmerge top`
    Observe,
    /// Builds and reloads under a real Portage
    Emerge,
}

/// Number of random plugin life cycles in the model family; about 50 microseconds each.
const LIVES: &str = "1000000";
/// Their seed: every change is tested with the same life cycles as the one before. To try
/// others, set another number in `PROPTEST_RNG_SEED`.
const SEED: &str = "20261122";

/// Where plugins run in the life-cycle tests: in the `host`, or each in its own `process`.
const ISOLATION: &str = "HOTMERGE_TEST_ISOLATION";
/// The user of the tests' hosts: the `tester`, or an `ordinary` user.
const USER: &str = "HOTMERGE_TEST_USER";

/// A variant in which a family runs once more, unless the variable is already set.
struct Again {
    variable: &'static str,
    value: &'static str,
    /// Whether the variant makes a difference to a test program.
    differs: fn(&str) -> bool,
}

impl Family {
    fn again(self) -> Option<Again> {
        let again = match self {
            // The life cycle is the same wherever plugins live.
            Self::Life => Again {
                variable: ISOLATION,
                value: "process",
                differs: |_| true,
            },
            // The sandbox holds whichever user runs the host; without root the first run has shown that.
            Self::Sandbox if geteuid().is_root() => Again {
                variable: USER,
                value: "ordinary",
                // What is in a file is there for everybody. Chaos repeats the attacks of the
                // others. Only root has cgroups to hand out.
                differs: |program| !matches!(program, "chaos" | "sandbox_cgroup" | "static_tricks"),
            },
            _ => return None,
        };
        env::var_os(again.variable).is_none().then_some(again)
    }
}

/// The family that an end-to-end test program belongs to.
fn family_of(program: &str) -> Family {
    match program.split('_').next() {
        Some("emerge") => Family::Emerge,
        Some("http") => Family::Http,
        Some("author") => Family::Author,
        Some("foreign") => Family::Foreign,
        Some("observe") => Family::Observe,
        Some("life") => Family::Life,
        Some("watch") => Family::Watch,
        Some("chaos" | "honest" | "hostile" | "sandbox" | "static" | "workers") => Family::Sandbox,
        _ => Family::Main,
    }
}

/// Runs the command.
///
/// # Errors
/// If a tool is missing or cargo cannot be run. Failing tests are an exit code.
pub fn run(args: &Args) -> Result<u8> {
    let families = match args.family {
        Some(family) => vec![family],
        None => Family::value_variants().to_vec(),
    };
    tools::install()?;
    let cargo = Cargo::locate(None)?;
    let skips = tempfile::NamedTempFile::new().context("failed to make a temporary file")?;
    let mut tally = Tally::default();
    let mut run_one = |command: &mut Command| -> Result<()> {
        command.arg("--").args(&args.rest);
        if !add_up(command.env(SKIPPED, skips.path()), &mut tally)? {
            tally.broken += 1;
        }
        Ok(())
    };
    for family in families {
        for mut command in commands(family, &cargo, |_| true)? {
            run_one(&mut command)?;
        }
        let Some(again) = family.again() else {
            continue;
        };
        output::line(format_args!(
            "\nOnce more with {}={}",
            again.variable, again.value
        ));
        for mut command in commands(family, &cargo, again.differs)? {
            run_one(command.env(again.variable, again.value))?;
        }
    }
    let skipped = read_skips(skips.path())?;
    for why in &skipped {
        output::line(format_args!("SKIPPED: {why}"));
    }
    output::line(format_args!("{}", tally.summary(skipped.len())));
    Ok(if tally.is_good() {
        exit::OK
    } else {
        exit::FAILURE
    })
}

/// The cargo command that runs a family, limited to the wanted end-to-end test programs.
fn commands(family: Family, cargo: &Cargo, wanted: fn(&str) -> bool) -> Result<Vec<Command>> {
    let mut command = cargo.command();
    command.args(["test", "--no-fail-fast"]);
    match family {
        Family::Unit => {
            command.args(["--workspace", "--exclude", "hotmerge-tests"]);
        }
        Family::Model => {
            let flags = env::var("RUSTFLAGS").unwrap_or_default();
            command
                .args(["--release", "--package", "hotmerge-swap", "--lib"])
                .args(["--target-dir", "target/loom"])
                .env("RUSTFLAGS", format!("{flags} --cfg loom"));
            let mut lives = cargo.command();
            lives
                .args([
                    "test",
                    "--release",
                    "--package",
                    "hotmerge-lifecycle",
                    "--lib",
                ])
                .arg("promises_hold_in_any_order_of_events")
                .env("HOTMERGE_ORDERS", LIVES);
            if env::var_os("PROPTEST_RNG_SEED").is_none() {
                lives.env("PROPTEST_RNG_SEED", SEED);
            }
            return Ok(vec![command, lives]);
        }
        Family::Author => {
            command.args(["--package", "hotmerge-tests"]);
            for name in end_to_end(cargo, family)?.iter().filter(|it| wanted(it)) {
                command.args(["--test", name]);
            }
            // The kit belongs to the SDK, which knows none of the other crates.
            let mut kit = cargo.command();
            kit.args(["test", "--package", "hotmerge-sdk", "--test", "author_kit"]);
            return Ok(vec![command, kit]);
        }
        Family::Main
        | Family::Life
        | Family::Sandbox
        | Family::Watch
        | Family::Http
        | Family::Foreign
        | Family::Observe
        | Family::Emerge => {
            command.args(["--package", "hotmerge-tests"]);
            for name in end_to_end(cargo, family)?.iter().filter(|it| wanted(it)) {
                command.args(["--test", name]);
            }
        }
    }
    Ok(vec![command])
}

/// The end-to-end test programs of a family.
fn end_to_end(cargo: &Cargo, family: Family) -> Result<Vec<String>> {
    let metadata = cargo.workspace()?;
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "hotmerge-tests")
        .context("this workspace has no end-to-end tests")?;
    Ok(package
        .targets
        .iter()
        .filter(|target| target.is_test() && family_of(&target.name) == family)
        .map(|target| target.name.clone())
        .collect())
}

/// Runs one cargo, forwards its output and adds up its results.
fn add_up(command: &mut Command, tally: &mut Tally) -> Result<bool> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to run cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("failed to read the tests' output")?;
        output::line(format_args!("{line}"));
        tally.add(&line);
    }
    Ok(child.wait()?.success())
}

fn read_skips(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read `{}`", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}
