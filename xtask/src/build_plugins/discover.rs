//! Finds the plugins among the workspace's members, and reads their metadata.
//!
//! A plugin is a package with a table `[package.metadata.hotmerge]`, which may be empty.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, Package, PackageId, Target, TargetKind};
use hotmerge_meta::{
    PackageName, PluginName,
    package::{Handover, Requires, Wants},
};
use semver::Version;
use serde::Deserialize;

const MARK: &str = "[package.metadata.hotmerge]";

/// A plugin crate of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Plugin {
    /// The name that calls use.
    pub name: PluginName,
    /// The directory that it is staged in.
    pub package: PackageName,
    pub version: Version,
    pub handover: Handover,
    pub requires: Vec<Requires>,
    pub wants: Wants,
    /// How cargo names the package.
    pub id: PackageId,
    /// How cargo names the package's cdylib target.
    pub target: String,
    pub manifest: PathBuf,
}

/// The table as an author writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Declaration {
    name: Option<PluginName>,
    package: Option<PackageName>,
    handover: Handover,
    requires: Vec<Requires>,
    wants: Wants,
}

/// All plugins of the workspace, by name.
pub(crate) fn plugins(workspace: &Metadata) -> Result<Vec<Plugin>> {
    let mut found = BTreeMap::<PluginName, Plugin>::new();
    for package in workspace.workspace_packages() {
        let Some(plugin) = plugin(package)? else {
            continue;
        };
        if let Some(other) = found.get(&plugin.name) {
            bail!(
                "`{}` and `{}` both declare the plugin `{}`; rename one in its {MARK}",
                other.manifest.display(),
                plugin.manifest.display(),
                plugin.name,
            );
        }
        found.insert(plugin.name.clone(), plugin);
    }
    Ok(found.into_values().collect())
}

/// The requested ones of `plugins`; all if none was requested.
pub(crate) fn select(plugins: &[Plugin], names: &[String]) -> Result<Vec<Plugin>> {
    for name in names {
        if !plugins.iter().any(|plugin| plugin.name == *name.as_str()) {
            let known: Vec<_> = plugins
                .iter()
                .map(|plugin| format!("`{}`", plugin.name))
                .collect();
            bail!(
                "no plugin `{name}` in this workspace; its plugins are: {}",
                known.join(", ")
            );
        }
    }
    let is_wanted = |plugin: &&Plugin| {
        names.is_empty() || names.iter().any(|name| plugin.name == *name.as_str())
    };
    Ok(plugins.iter().filter(is_wanted).cloned().collect())
}

/// `name-version` of the packages that the workspace at `root` has more than once, from
/// different sources. Empty without a Cargo.lock.
pub(crate) fn twins(root: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        version: String,
    }
    let path = root.join("Cargo.lock");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("failed to read `{}`", path.display()));
        }
    };
    let lock: Lock =
        toml::from_str(&text).with_context(|| format!("failed to parse `{}`", path.display()))?;
    let mut seen = BTreeSet::new();
    let names = lock
        .package
        .into_iter()
        .map(|package| format!("{}-{}", package.name, package.version));
    Ok(names.filter(|name| !seen.insert(name.clone())).collect())
}

fn plugin(package: &Package) -> Result<Option<Plugin>> {
    let Some(table) = package.metadata.get("hotmerge") else {
        return Ok(None);
    };
    let manifest = package.manifest_path.as_std_path().to_owned();
    let declared = Declaration::deserialize(table)
        .with_context(|| format!("`{}`: {MARK} is invalid", manifest.display()))?;
    // An example may have the crate type, but only a library has the kind.
    let is_cdylib = |target: &&Target| target.kind.contains(&TargetKind::CDyLib);
    let Some(target) = package.targets.iter().find(is_cdylib) else {
        bail!(
            "`{}` has a {MARK} but builds no plugin; add `crate-type = [\"cdylib\"]` to its [lib]",
            manifest.display(),
        );
    };
    let name = match declared.name {
        Some(name) => name,
        None => PluginName::new(target.name.clone()).with_context(|| {
            format!(
                "`{}`: give the plugin a `name` in {MARK}",
                manifest.display()
            )
        })?,
    };
    let package_name = match declared.package {
        Some(package) => package,
        None => PackageName::new(name.as_str())?,
    };
    Ok(Some(Plugin {
        name,
        package: package_name,
        version: package.version.clone(),
        handover: declared.handover,
        requires: declared.requires,
        wants: declared.wants,
        id: package.id.clone(),
        target: target.name.clone(),
        manifest,
    }))
}
