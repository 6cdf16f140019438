//! `demo`: shows newcomers the whole loop with real processes.
//!
//! Works on a copy of the sources in cargo's target directory and ends every process it started. It
//! checks its claims: it fails if a call fails or the wrong plugin is reloaded.

mod callers;
mod copy;
mod host;

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use hotmerge_meta::{Digest, RuntimeDir};
use tempfile::TempDir;

use self::{callers::Callers, host::DemoHost};
use crate::{cargo::Cargo, exit, output};

/// Show the whole loop: build, run, call, edit, and watch one plugin reload
///
/// Needs no other programs and no privileges; leaves nothing behind but compiled crates in cargo's
/// target directory.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {}

/// The edit: old text and new text.
const EDIT: (&str, &str) = ("return Ok(1);", "return Ok(10);");

/// Runs the command.
///
/// # Errors
/// If any claim of the demonstration does not hold.
pub fn run(_: Args) -> Result<u8> {
    let cargo = Cargo::locate(None)?;
    let dir = TempDir::new().context("failed to make a temporary directory")?;
    // Always in one place: cargo would not use what it built of them elsewhere.
    let target = cargo.root().join("target/demo");
    let sources = target.join("sources");
    if sources.exists() {
        fs::remove_dir_all(&sources)?;
    }
    let staging = dir.path().join("plugins");
    let runtime = RuntimeDir::new(dir.path().join("run"));
    fs::create_dir(&staging)?;

    step("copy the sources for editing");
    copy::sources(cargo.root(), &sources)?;

    step("build the host");
    let program = host::build(&cargo)?;

    step("build the plugins: cargo xtask build-plugins");
    let driver = Driver {
        target,
        sources: &sources,
        staging: &staging,
        runtime: &runtime,
    };
    driver.build_plugins("never")?;

    step("start the host: hotmerge serve");
    let host = DemoHost::start(&program, &staging, &runtime, &dir.path().join("state"))?;
    host.show_status(&runtime)?;

    step("call a plugin: hotmerge call announce render --input release.json");
    let release = cargo
        .root()
        .join("plugins/announcement/samples/release.json");
    let announcement = host::call(&runtime, "announce", "render", &fs::read(release)?)?;
    output::bytes(&announcement);

    step("call both plugins continuously while the counter's source is edited and built");
    let before = host::generations(&runtime)?;
    let callers = Callers::start(&runtime, &announcement)?;
    edit(&sources.join("plugins/samples/counter/src/lib.rs"))?;
    output::line(format_args!("- {}\n+ {}", EDIT.0, EDIT.1));
    driver.build_plugins("require")?;
    let calls = callers.stop()?;

    step("result");
    host.show_status(&runtime)?;
    let after = host::generations(&runtime)?;
    judge(&before, &after)?;
    ensure!(
        calls.failed == 0,
        "{} of {} calls failed",
        calls.failed,
        calls.made
    );
    output::line(format_args!(""));
    output::line(format_args!("the counter was reloaded; announce was not"));
    output::line(format_args!(
        "{} calls in the meantime, none failed",
        calls.made
    ));
    host.stop()?;
    Ok(exit::OK)
}

fn step(what: &str) {
    output::line(format_args!("\n{BOLD}==> {what}{BOLD:#}"));
}

const BOLD: anstyle::Style = anstyle::Style::new().bold();

struct Driver<'a> {
    target: std::path::PathBuf,
    sources: &'a Path,
    staging: &'a Path,
    runtime: &'a RuntimeDir,
}

impl Driver<'_> {
    /// Runs this program as a user would.
    fn build_plugins(&self, notify: &str) -> Result<()> {
        let program = env::current_exe().context("failed to find this program")?;
        let status = Command::new(program)
            .args(["build-plugins", "--notify", notify, "--staging"])
            .arg(self.staging)
            .arg("--runtime-dir")
            .arg(self.runtime.path())
            .arg("--manifest-path")
            .arg(self.sources.join("Cargo.toml"))
            // Kept from run to run, so that only the first one compiles everything.
            .env("CARGO_TARGET_DIR", &self.target)
            .status()?;
        if !status.success() {
            bail!("build-plugins failed");
        }
        Ok(())
    }
}

fn edit(source: &Path) -> Result<()> {
    let text = fs::read_to_string(source)
        .with_context(|| format!("failed to read `{}`", source.display()))?;
    let edited = text.replace(EDIT.0, EDIT.1);
    ensure!(
        edited != text,
        "`{}` does not contain the text to edit",
        source.display()
    );
    fs::write(source, edited).with_context(|| format!("failed to edit `{}`", source.display()))
}

fn judge(before: &[Running], after: &[Running]) -> Result<()> {
    for then in before {
        let now = after.iter().find(|now| now.name == then.name);
        let now = now.with_context(|| format!("`{}` is gone", then.name))?;
        if then.name == "counter" {
            ensure!(
                now.generation == then.generation + 1,
                "the counter was not reloaded once"
            );
            ensure!(now.hash != then.hash, "the counter's hash did not change");
        } else {
            ensure!(now == then, "`{}` was reloaded", then.name);
        }
    }
    Ok(())
}

/// A plugin as the host reports it.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
struct Running {
    name: String,
    hash: Option<Digest>,
    generation: u64,
    address: Option<String>,
}
