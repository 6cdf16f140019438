//! `hotmerge inspect`: what a plugin's file asks of the dynamic loader, and whether that is
//! allowed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use hotmerge_instance::{
    Isolation,
    rules::{policies, wants::not_granted},
};
use hotmerge_meta::{Image, Meta, PluginMeta};
use hotmerge_policy::{File, Objection, Rules, judge};
use hotmerge_sandbox::Grant;
use serde::Serialize;

use super::{configuration, print_json};
use crate::exit::{self, Failure};

/// Show what a plugin's file imports, needs and maps, and whether the symbol policy takes it.
///
/// What counts is what the dynamic loader reads; section headers are not looked at.
#[derive(Args, Debug)]
pub(super) struct Inspect {
    /// A shared object
    file: PathBuf,
    /// What is granted to it: `net`, `fs:/path:ro` or `fs:/path:rw`
    #[arg(long, value_name = "GRANT")]
    allow: Vec<Grant>,
    /// Judge it as for the host's own process
    #[arg(long)]
    host: bool,
    /// Configuration (TOML) of the host that is meant, for its symbol policy
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
    pub(super) fn run(self) -> Result<(), Failure> {
        let bytes = fs::read(&self.file)
            .with_context(|| format!("failed to read `{}`", self.file.display()))?;
        let refused = |error: String| Failure::text(exit::REFUSED, error);
        let image = Image::normalise(bytes).map_err(|error| refused(error.to_string()))?;
        let file = File::read(image.bytes()).map_err(|error| refused(error.to_string()))?;
        let policy = policies::symbols(&configuration(self.config.as_deref())?.policy_files())
            .map_err(|error| Failure::new(exit::CONFIG, error))?;
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
        let count = objections.len();
        let report = Report {
            file,
            wants: wants(&self.file),
            groups,
            objections,
        };
        if self.json {
            print_json(&report)?;
        } else {
            print(&report);
        }
        match count {
            0 => Ok(()),
            count => Err(refused(format!("the symbol policy has {count} objections"))),
        }
    }
}

/// What the plugin asks for: nothing if there is no `plugin.meta` that tells of the file.
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

fn print(report: &Report) {
    for segment in &report.file.segments {
        let (access, address, bytes) = (&segment.access, segment.address, segment.bytes);
        println!("segment  {access}  {address:#x}  {bytes} bytes");
    }
    for library in &report.file.needed {
        println!("needs    {library}");
    }
    for (group, symbols) in &report.groups {
        println!("imports  {group}: {}", symbols.join(" "));
    }
    for wanted in &report.wants {
        println!("asks for {wanted}");
    }
    for objection in &report.objections {
        println!("refused  {objection}");
    }
    if report.objections.is_empty() {
        println!("allowed");
    }
}
