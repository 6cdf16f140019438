//! `hotmerge verify`: whether files are what their `plugin.meta` says.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use hotmerge_daemon::{StartError, log::plain};
use hotmerge_meta::{Image, META_FILE, Meta, PluginMeta, check_abi, read_regular};
use serde::Serialize;
use walkdir::WalkDir;

use super::{print_json, reload::shorten};
use crate::{
    exit::{self, Failure},
    table::{self, Meaning, coloured},
};

/// Largest plugin file, in bytes.
const LIMIT_BYTES: u64 = 1 << 30;

/// Check every package below a directory: does each file match its plugin.meta, and could
/// this host load it?
#[derive(Args, Debug)]
pub(super) struct Verify {
    /// A package, a plugin directory or a staging directory
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    dir: Option<PathBuf>,
    /// Check what a host with this configuration would find
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Print only what does not verify, in short lines for a log
    #[arg(long, conflicts_with = "json")]
    brief: bool,
}

#[derive(Debug, Serialize)]
struct Finding {
    package: String,
    plugin: Option<String>,
    version: Option<String>,
    ok: bool,
    problem: Option<String>,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let dir = self.dir()?;
        let mut findings = Vec::new();
        for entry in WalkDir::new(&dir).max_depth(2).sort_by_file_name() {
            let entry = entry.with_context(|| format!("failed to read `{}`", dir.display()))?;
            if entry.file_name() == META_FILE
                && let Some(package) = entry.path().parent()
            {
                verify(package, &mut findings);
            }
        }
        // A host without plugins is one that has none yet.
        if findings.is_empty() && self.config.is_none() {
            return Err(Failure::text(
                exit::FAILURE,
                format!("there is no {META_FILE} in `{}`", dir.display()),
            ));
        }
        self.print(&findings)?;
        match findings.iter().filter(|finding| !finding.ok).count() {
            0 => Ok(()),
            bad => Err(Failure::text(exit::REFUSED, format!("{bad} do not verify"))),
        }
    }

    fn dir(&self) -> Result<PathBuf, Failure> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => {
                let config = super::configuration(self.config.as_deref())?;
                let dir = config.plugin_dir.ok_or(StartError::NoPluginDir);
                dir.map_err(|error| Failure::new(exit::CONFIG, error))
            }
        }
    }

    fn print(&self, findings: &[Finding]) -> Result<(), Failure> {
        if self.json {
            return findings.iter().try_for_each(print_json);
        }
        if self.brief {
            for finding in findings {
                print_brief(finding);
            }
            return Ok(());
        }
        let mut table = table::new(&["PACKAGE", "PLUGIN", "VERSION", "RESULT"]);
        for finding in findings {
            let (text, meaning) = match &finding.problem {
                None => ("ok", Meaning::Good),
                Some(problem) => (problem.as_str(), Meaning::Bad),
            };
            table.add_row(vec![
                coloured(&finding.package, Meaning::Plain),
                coloured(finding.plugin.as_deref().unwrap_or("-"), Meaning::Plain),
                coloured(finding.version.as_deref().unwrap_or("-"), Meaning::Plain),
                coloured(text, meaning),
            ]);
        }
        table::print(&table);
        Ok(())
    }
}

fn print_brief(finding: &Finding) {
    let Some(problem) = &finding.problem else {
        return;
    };
    let problem = shorten(problem);
    match (&finding.plugin, &finding.version) {
        (Some(plugin), Some(version)) => anstream::println!("{plugin} {version}: {problem}"),
        _ => anstream::println!("package {}: {problem}", plain(&finding.package)),
    }
}

fn verify(dir: &Path, findings: &mut Vec<Finding>) {
    let package = dir.file_name().unwrap_or(dir.as_os_str());
    let package = package.to_string_lossy().into_owned();
    match Meta::read_path(dir) {
        Err(error) => findings.push(Finding {
            package,
            plugin: None,
            version: None,
            ok: false,
            problem: Some(error.to_string()),
        }),
        Ok(meta) => findings.extend(meta.plugin.iter().map(|plugin| {
            let problem = examine(dir, plugin).err();
            Finding {
                package: package.clone(),
                plugin: Some(plugin.name.to_string()),
                version: Some(plugin.version.to_string()),
                ok: problem.is_none(),
                problem,
            }
        })),
    }
}

fn examine(dir: &Path, plugin: &PluginMeta) -> Result<(), String> {
    let open = File::open(dir).map_err(|error| error.to_string())?;
    let (bytes, _) = read_regular(&open, plugin.file.as_str(), LIMIT_BYTES)
        .map_err(|error| error.to_string())?;
    let image = Image::normalise(bytes).map_err(|error| error.to_string())?;
    if image.digest() != plugin.hash {
        return Err(format!(
            "`{}` has the hash {}, plugin.meta says {}",
            plugin.file,
            image.digest(),
            plugin.hash
        ));
    }
    let header = image.header().map_err(|error| error.to_string())?;
    check_abi(&header).map_err(|error| error.to_string())
}
