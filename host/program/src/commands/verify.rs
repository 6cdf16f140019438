//! `hotmerge verify`: whether files are what their `plugin.meta` says.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use hotmerge_meta::{Image, META_FILE, Meta, PluginMeta, check_abi, read_regular};
use serde::Serialize;
use walkdir::WalkDir;

use crate::{
    exit::{self, Failure},
    output,
    table::{self, Meaning, coloured, count},
};

/// Largest plugin file, in bytes.
const LIMIT_BYTES: u64 = 1 << 30;

/// Check every package below a directory: does each file match its plugin.meta, and would a
/// host load it?
#[derive(Args, Debug)]
pub(super) struct Verify {
    /// Package, plugin directory or staging directory
    dir: PathBuf,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
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
        let mut findings = Vec::new();
        for entry in WalkDir::new(&self.dir).max_depth(2).sort_by_file_name() {
            let entry = entry
                .map_err(|error| match error.into_io_error() {
                    Some(error) => error,
                    None => io::Error::other("symbolic links form a loop"),
                })
                .with_context(|| format!("failed to read `{}`", self.dir.display()))?;
            if entry.file_name() == META_FILE
                && let Some(package) = entry.path().parent()
            {
                verify(package, &mut findings);
            }
        }
        if findings.is_empty() {
            return Err(Failure::text(
                exit::FAILURE,
                format!("there is no {META_FILE} in `{}`", self.dir.display()),
            ));
        }
        self.print(&findings)?;
        let bad = findings.iter().filter(|finding| !finding.ok);
        let packages: BTreeSet<_> = bad.map(|finding| &finding.package).collect();
        match packages.len() {
            0 => Ok(()),
            bad => Err(Failure::text(
                exit::REFUSED,
                format!("{} failed verification", count(bad as u64, "package")),
            )),
        }
    }

    fn print(&self, findings: &[Finding]) -> Result<(), Failure> {
        if self.json {
            return Ok(findings.iter().try_for_each(output::print_json)?);
        }
        Ok(output::print(text(findings))?)
    }
}

fn text(findings: &[Finding]) -> String {
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
    table::text(&table)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_plugin() {
        let finding = |package: &str, plugin: Option<&str>, problem: Option<&str>| Finding {
            package: package.to_owned(),
            plugin: plugin.map(str::to_owned),
            version: plugin.map(|_| "1.0.0".to_owned()),
            ok: problem.is_none(),
            problem: problem.map(str::to_owned),
        };
        let shown = text(&[
            finding("counter", Some("counter"), None),
            finding(
                "other",
                Some("other"),
                Some("`libother.so` is not an ELF file"),
            ),
            finding("stray", None, Some("plugin.meta is not a file")),
        ]);
        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string());
    }
}
