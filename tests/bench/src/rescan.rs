//! What a rescan costs with 10, 100 and 1,000 plugins of which one changed. Only the `stat`
//! pass, which is measured beside it, may grow; and a scan of one package that a watcher has reported
//! must not grow at all.

use std::{
    fs,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use hotmerge_daemon::scan::{Dirty, Scanner, Unwatched};
use hotmerge_meta::{Abi, Digest, Handover, Meta, PluginMeta, Wants, control::ReloadParams};
use tempfile::TempDir;

use crate::{
    figure::{Figure, Figures, Pairs, micros, time},
    subject::{Subject, host, stage},
};

pub(crate) fn run(subject: &Subject, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    for plugins in [10, 100, 1000] {
        let dir = TempDir::new()?;
        for index in 0..plugins {
            stage(dir.path(), &format!("subject{index}"), &subject.variants[0])?;
        }
        let host = host(dir.path())?;
        let mut pairs = Pairs::default();
        for round in 0..rounds {
            let variant = &subject.variants[(round + 1) % 2];
            // The host's own clock may be faster than the request.
            let params = ReloadParams {
                since: Some(host.position()),
                ..ReloadParams::default()
            };
            stage(dir.path(), "subject0", variant)?;
            let (took, report) = time(|| host.reload(&params));
            anyhow::ensure!(report.plugins.len() == 1, "not one reload: {report:?}");
            pairs.push(micros(took), micros(stat_pass(dir.path())?));
        }
        let mut idle = Pairs::default();
        for _ in 0..rounds {
            let (took, ()) = time(|| host.rescan());
            idle.push(micros(took), micros(stat_pass(dir.path())?));
        }
        let (value, pass, ratio) = idle.medians();
        figures.tell(&Figure {
            bench: format!("rescan, none of {plugins} changed"),
            unit: "µs",
            value,
            floor: Some(pass),
            ratio: Some(ratio),
            ..Figure::default()
        })?;
        let (value, pass, _) = pairs.medians();
        figures.tell(&Figure {
            bench: format!("rescan, 1 of {plugins} changed"),
            unit: "µs",
            value,
            floor: Some(pass),
            ..Figure::default()
        })?;
        figures.tell(&Figure {
            bench: format!("rescan without its stat pass, {plugins} plugins"),
            unit: "µs",
            value: value - pass,
            ..Figure::default()
        })?;
    }
    hints(rounds, figures)
}

/// A plugin directory, and what its host remembers of it.
struct Looked {
    dir: TempDir,
    scanner: Scanner,
}

impl Looked {
    fn new(plugins: usize) -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        for index in 0..plugins {
            let package = dir.path().join(format!("subject{index}"));
            fs::create_dir(&package)?;
            // A scan does not read it.
            fs::write(package.join("libsubject.so"), "")?;
            fs::write(
                package.join("plugin.meta"),
                text(&format!("subject{index}"), 0)?,
            )?;
        }
        let mut scanner = Scanner::new(dir.path().to_owned(), Duration::from_secs(2));
        while !scanner.is_at_rest() || scanner.find("subject0").is_none() {
            scanner.scan(Instant::now());
        }
        Ok(Self { dir, scanner })
    }

    /// One package changes, and is scanned alone.
    fn hint(&mut self, round: u64) -> anyhow::Result<Duration> {
        let package = self.dir.path().join("subject0");
        fs::write(package.join(".new"), text("subject0", round + 1)?)?;
        fs::rename(package.join(".new"), package.join("plugin.meta"))?;
        let dirty = Dirty::contents(["subject0".parse()?]);
        let (took, findings) = time(|| self.scanner.look(Instant::now(), &dirty, &mut Unwatched));
        anyhow::ensure!(findings.changed.len() == 1, "not one change: {findings:?}");
        Ok(took)
    }

    fn pass(&mut self) -> Duration {
        time(|| self.scanner.scan(Instant::now())).0
    }
}

fn text(name: &str, patch: u64) -> anyhow::Result<String> {
    let meta = PluginMeta {
        name: name.parse()?,
        version: semver::Version::new(1, 0, patch),
        file: "libsubject.so".parse()?,
        hash: Digest::of(&patch.to_ne_bytes()),
        size: 1,
        abi: Abi::CURRENT,
        target: hotmerge_daemon::TARGET.to_owned(),
        handover: Handover::default(),
        requires: Vec::new(),
        wants: Wants::default(),
    };
    Ok(Meta::new(vec![meta])?.to_toml())
}

/// The scan that a watcher's hint leads to, without the reload that follows.
fn hints(rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let (mut few, mut many) = (Looked::new(10)?, Looked::new(5_000)?);
    let (mut hints, mut passes) = (Pairs::default(), Pairs::default());
    for round in 0..rounds as u64 {
        let floor = micros(few.hint(round)?);
        hints.push(micros(many.hint(round)?), floor);
        passes.push(micros(few.pass()), micros(many.pass()));
    }
    let (value, floor, ratio) = hints.medians();
    for (bench, value, floor, ratio) in [
        ("scan after a hint for 1 of 10", floor, None, None),
        (
            "scan after a hint for 1 of 5000, against 1 of 10",
            value,
            Some(floor),
            Some(ratio),
        ),
        ("scan all of 5000", passes.medians().1, None, None),
    ] {
        figures.tell(&Figure {
            bench: bench.to_owned(),
            unit: "µs",
            value,
            floor,
            ratio,
            ..Figure::default()
        })?;
    }
    Ok(())
}

/// Lists the directory and stats both files of each package.
fn stat_pass(dir: &Path) -> anyhow::Result<Duration> {
    let (took, done) = time(|| {
        let root = OwnedFd::from(fs::File::open(dir)?);
        for entry in rustix::fs::Dir::read_from(&root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if !name.starts_with('.') {
                hotmerge_meta::stamp(&root, format!("{name}/plugin.meta"))?;
                hotmerge_meta::stamp(&root, format!("{name}/libsubject.so"))?;
            }
        }
        anyhow::Ok(())
    });
    done?;
    Ok(took)
}
