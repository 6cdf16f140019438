//! Finds the plugins among the workspace's members, and reads their metadata.
//!
//! A plugin is a package with a table `[package.metadata.hotmerge]`, which may be empty.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, Package, PackageId, Target, TargetKind};
use hotmerge_meta::{
    PackageName, PluginName,
    package::{Handover, Requires, Wants},
};
use semver::Version;
use serde::Deserialize;

pub(super) const MARK: &str = "[package.metadata.hotmerge]";

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
    /// How cargo names the package's cdylib target, and the compiler its crate.
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

/// A cdylib of the workspace without [`MARK`].
#[derive(Clone, Debug)]
pub(crate) struct Unmarked {
    /// Its name if it were staged.
    pub file: String,
    pub manifest: PathBuf,
}

/// Libraries that may have been plugins before their mark was removed.
pub(crate) fn unmarked(workspace: &Metadata) -> Vec<Unmarked> {
    let packages = workspace.workspace_packages().into_iter();
    let unmarked = packages.filter(|package| package.metadata.get("hotmerge").is_none());
    let libraries = unmarked.flat_map(|package| {
        let targets = package.targets.iter();
        let cdylibs = targets.filter(|target| target.kind.contains(&TargetKind::CDyLib));
        cdylibs.map(|target| Unmarked {
            file: format!("lib{}.so", target.name.replace('-', "_")),
            manifest: package.manifest_path.as_std_path().to_owned(),
        })
    });
    libraries.collect()
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
        if let Some(other) = found.values().find(|other| other.target == plugin.target) {
            bail!(
                "`{}` and `{}` both build `lib{}.so`, and cargo keeps one file of that name; \
                 give one of them another `name` in its [lib]",
                other.manifest.display(),
                plugin.manifest.display(),
                plugin.target,
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
        target: target.name.replace('-', "_"),
        manifest,
    }))
}
