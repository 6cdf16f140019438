//! What a rescan costs with 10, 100 and 1,000 plugins of which one changed. Only the `stat`
//! pass, which is measured beside it, may grow.

use std::{fs, os::fd::OwnedFd, path::Path, time::Duration};

use hotmerge_meta::control::ReloadParams;
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
            stage(dir.path(), "subject0", variant)?;
            let (took, report) = time(|| host.reload(&ReloadParams::default()));
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
