//! What `build-plugins` adds to a bare `cargo build` when there is nothing to do.

use std::{process::Command, time::Duration};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::{
    figure::{Figure, Figures, Pairs, time},
    subject::{Subject, cargo, program, write_crate},
};

pub(crate) fn run(_: &Subject, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let dir = TempDir::new()?;
    write_crate(dir.path(), "1")?;
    let driver = program("hotmerge-xtask", "xtask")?;
    let mut pairs = Pairs::default();
    for round in 0..rounds.min(21) + 1 {
        let driven = run_quietly(
            Command::new(&driver)
                .args(["build-plugins", "--notify", "never", "--manifest-path"])
                .arg(dir.path().join("Cargo.toml")),
        )?;
        let bare = run_quietly(
            Command::new(cargo())
                .args(["build", "--release", "--lib"])
                .args(["--target-dir"])
                .arg(dir.path().join("bare"))
                .current_dir(dir.path()),
        )?;
        // The first really builds.
        if round > 0 {
            pairs.push(driven.as_secs_f64() * 1e3, bare.as_secs_f64() * 1e3);
        }
    }
    let (value, floor, ratio) = pairs.medians();
    figures.tell(&Figure {
        bench: "build-plugins with nothing to do".to_owned(),
        unit: "ms",
        value,
        floor: Some(floor),
        ratio: Some(ratio),
        ..Figure::default()
    })?;
    figures.tell(&Figure {
        bench: "build-plugins beyond cargo build".to_owned(),
        unit: "ms",
        value: value - floor,
        ..Figure::default()
    })
}

fn run_quietly(command: &mut Command) -> anyhow::Result<Duration> {
    let (took, output) = time(|| command.output());
    let output = output.with_context(|| format!("failed to run {command:?}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took)
}
