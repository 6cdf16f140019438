//! `hotmerge inspect`: what a plugin's file asks of the dynamic loader, and whether that is
//! allowed.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use hotmerge_instance::{
    Isolation,
    rules::{policies, wants::not_granted},
};
use hotmerge_meta::{Image, Meta, PluginMeta, count};
use hotmerge_policy::{File, Objection, Rules, judge};
use hotmerge_sandbox::Grant;
use serde::Serialize;

use super::host::configuration;
use crate::{
    exit::{self, CommandError},
    output,
};

/// Show what a plugin file imports, needs and maps, and whether the symbol policy allows it.
///
/// Only what the dynamic loader reads counts; section headers are ignored.
#[derive(Args, Debug)]
pub(super) struct Inspect {
    /// Shared object
    file: PathBuf,
    /// Grant that the plugin has: `net`, `fs:/path:ro` or `fs:/path:rw`
    #[arg(long, value_name = "GRANT")]
    allow: Vec<Grant>,
    /// Judge it as a plugin that runs in the host's own process
    #[arg(long)]
    host: bool,
    /// Configuration file (TOML) that names the symbol policy
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    file: File,
    /// What the `plugin.meta` beside the file asks for, granted or not.
    wants: Vec<String>,
    groups: BTreeMap<String, Vec<String>>,
    objections: Vec<Objection>,
}

impl Inspect {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let bytes = fs::read(&self.file)
            .with_context(|| format!("failed to read `{}`", self.file.display()))?;
        let image = Image::normalise(bytes).map_err(|error| self.refused(error))?;
        let file = File::read(image.bytes()).map_err(|error| self.refused(error))?;
        let policy = policies::symbols(&configuration(self.config.as_deref())?.policy_files())
            .map_err(|error| CommandError::new(exit::CONFIG, error))?;
        let rules: Rules = policies::rules(self.host, &self.allow);
        let objections = judge(&file, &policy, rules);
        let mut groups = BTreeMap::<String, Vec<String>>::new();
        for symbol in &file.imports {
            let name = policy.of(symbol).map_or("in no group", |group| &group.name);
            groups
                .entry(name.to_owned())
                .or_default()
                .push(symbol.clone());
        }
        let refusals = objections.len();
        let report = Report {
            file,
            wants: wants(&self.file),
            groups,
            objections,
        };
        if self.json {
            output::print_json(&report)?;
        } else {
            output::print(&report);
        }
        self.verdict(refusals)
    }

    fn verdict(&self, objections: usize) -> Result<(), CommandError> {
        match objections {
            0 => Ok(()),
            number => Err(self.refused(refusal(number))),
        }
    }

    fn refused(&self, why: impl fmt::Display) -> CommandError {
        CommandError::text(exit::REFUSED, format!("`{}`: {why}", self.file.display()))
    }
}

fn refusal(objections: usize) -> String {
    let objections = count(objections as u64, "objection");
    format!("the symbol policy refuses it: {objections}")
}

/// What the plugin requests: nothing if no `plugin.meta` describes the file.
fn wants(file: &Path) -> Vec<String> {
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let Ok(meta) = Meta::read_path(dir) else {
        return Vec::new();
    };
    let mut plugins = meta.plugin.iter();
    let own = plugins.find(|plugin| Some(plugin.file.as_str().as_ref()) == file.file_name());
    let asked = |plugin: &PluginMeta| not_granted(&plugin.wants, &[], Isolation::Process);
    own.map(asked).unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.file.segments {
            let (access, address, bytes) = (&segment.access, segment.address, segment.bytes);
            writeln!(f, "segment  {access}  {address:#x}  {bytes} bytes")?;
        }
        for library in &self.file.needed {
            writeln!(f, "needs    {library}")?;
        }
        for (group, symbols) in &self.groups {
            writeln!(f, "imports  {group}: {}", symbols.join(" "))?;
        }
        for wanted in &self.wants {
            writeln!(f, "wants    {wanted}")?;
        }
        for objection in &self.objections {
            writeln!(f, "refused  {objection}")?;
        }
        if self.objections.is_empty() {
            writeln!(f, "allowed")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_per_fact_and_a_verdict() {
        let mut report = Report {
            file: File::default(),
            wants: vec!["net".to_owned()],
            groups: BTreeMap::new(),
            objections: Vec::new(),
        };
        report.file.needed = vec!["libc.so.6".to_owned()];
        let imports = ["malloc", "free"].map(str::to_owned).to_vec();
        report.groups.insert("memory".to_owned(), imports);
        insta::assert_snapshot!(report.to_string());
    }

    #[test]
    fn one_objection_is_singular() {
        let inspect = Inspect {
            file: "libx.so".into(),
            allow: Vec::new(),
            config: None,
            host: false,
            json: false,
        };
        let objections = |number: usize| inspect.verdict(number).unwrap_err().report();
        insta::assert_snapshot!(objections(1) + &objections(2));
    }
}
