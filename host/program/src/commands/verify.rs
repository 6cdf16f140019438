//! `hotmerge verify`: whether a host would take the packages of a directory.

use std::{collections::BTreeSet, path::PathBuf};

use clap::Args;
use hotmerge_daemon::{JudgeError, Judgement, StartError, judge};
use hotmerge_meta::{META_FILE, control::SignedStatus, count, plain};
use serde::Serialize;

use super::{host::configuration, reload::shorten};
use crate::{
    exit::{self, CommandError},
    output,
    table::{self, Meaning, coloured},
};

/// Check every package below a directory: does each file match its plugin.meta, who signed it,
/// and would a host load it?
///
/// The answer is that of a host that starts on the directory with this configuration, on a system
/// that provides the sandbox. Only a running host can tell whether a plugin starts, which versions
/// have run before (`signed_order`), and what an operator pinned or rolled back. For a single
/// package, the plugins that it requires are not checked.
#[derive(Args, Debug)]
pub(super) struct Verify {
    /// Package, plugin directory or staging directory [default: the configuration's plugin
    /// directory]
    #[arg(required_unless_present = "config")]
    dir: Option<PathBuf>,
    /// Configuration file (TOML) of the host [default: the built-in symbol policy, and every
    /// plugin is granted what it asks for]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object per line
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
    signed: Option<SignedStatus>,
    problem: Option<String>,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.config.as_deref();
        let config = config.map(|path| configuration(Some(path))).transpose()?;
        let dir = self.dir.clone();
        let dir = dir.or_else(|| config.as_ref()?.plugin_dir.clone());
        let dir = dir.ok_or_else(|| CommandError::new(exit::CONFIG, StartError::NoPluginDir))?;
        let judged = judge(&dir, config.as_ref()).map_err(|error| {
            let code = match error {
                JudgeError::Policy(_) => exit::CONFIG,
                _ => exit::FAILURE,
            };
            CommandError::new(code, error)
        })?;
        let findings: Vec<Finding> = judged.into_iter().map(Finding::from).collect();
        // A host without plugins is one that has none yet.
        if findings.is_empty() && self.dir.is_some() {
            return Err(CommandError::text(
                exit::FAILURE,
                format!("there is no {META_FILE} in `{}`", dir.display()),
            ));
        }
        self.print(&findings)?;
        let bad = findings.iter().filter(|finding| !finding.ok);
        let packages: BTreeSet<_> = bad.map(|finding| &finding.package).collect();
        match packages.len() {
            0 => Ok(()),
            bad => Err(CommandError::text(
                exit::REFUSED,
                format!("{} failed verification", count(bad as u64, "package")),
            )),
        }
    }

    fn print(&self, findings: &[Finding]) -> Result<(), CommandError> {
        if self.json {
            findings.iter().try_for_each(output::print_json)?;
        } else if self.brief {
            output::print(findings.iter().filter_map(brief).collect::<String>());
        } else {
            output::print(text(findings));
        }
        Ok(())
    }
}

/// What is wrong, on one line.
fn brief(finding: &Finding) -> Option<String> {
    let problem = shorten(finding.problem.as_ref()?);
    Some(match (&finding.plugin, &finding.version) {
        (Some(plugin), Some(version)) => format!("{plugin} {version}: {problem}\n"),
        _ => format!("package {}: {problem}\n", plain(&finding.package)),
    })
}

fn text(findings: &[Finding]) -> String {
    let mut table = table::new(&["PACKAGE", "PLUGIN", "VERSION", "RESULT"]);
    for finding in findings {
        let (text, meaning) = match &finding.problem {
            None => (accepted(finding), Meaning::Good),
            Some(problem) => (problem.clone(), Meaning::Bad),
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

fn accepted(finding: &Finding) -> String {
    match &finding.signed {
        Some(signed) => format!("ok, signed by `{}` (key {})", signed.by, signed.key),
        None => "ok".to_owned(),
    }
}

impl From<Judgement> for Finding {
    fn from(judgement: Judgement) -> Self {
        let plugin = judgement.plugin.as_ref();
        Self {
            package: judgement.package,
            plugin: plugin.map(|meta| meta.name.to_string()),
            version: plugin.map(|meta| meta.version.to_string()),
            ok: judgement.problem.is_none(),
            signed: judgement.signed,
            problem: judgement.problem,
        }
    }
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
            signed: (package == "counter").then(|| SignedStatus {
                by: "releases".to_owned(),
                key: "E7620F1842B4E81F".to_owned(),
                comment: "timestamp:1700000000\tfile:plugin.meta".to_owned(),
            }),
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
