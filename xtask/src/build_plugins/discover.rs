//! Finds the plugins of a workspace, and reads their metadata.
//!
//! A plugin is a package with a table `[package.metadata.hotmerge]`, which may be empty, or one in another
//! language, see [`foreign`](super::foreign).

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, Package, PackageId, Target, TargetKind};
use hotmerge_meta::{
    PackageName, PluginName,
    package::{Handover, Requires, Wants},
};
use semver::Version;
use serde::Deserialize;

use super::foreign::{self, Foreign};

pub(super) const MARK: &str = "[package.metadata.hotmerge]";

/// A plugin of the workspace, in whatever language.
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
    /// The file that declares it.
    pub manifest: PathBuf,
}

/// A plugin that cargo builds.
#[derive(Clone, Debug)]
pub(crate) struct Crate {
    /// The plugin's name.
    pub name: PluginName,
    /// How cargo names the package.
    pub id: PackageId,
    /// How cargo names the package's cdylib target, and the compiler its crate.
    pub target: String,
    pub manifest: PathBuf,
}

/// How a plugin is built.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Crate(Crate),
    Foreign(Foreign),
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
pub(crate) fn plugins(workspace: &Metadata) -> Result<Vec<(Plugin, Source)>> {
    let mut found = BTreeMap::<PluginName, (Plugin, Source)>::new();
    let mut add = |plugin: Plugin, source: Source| {
        if let Some((other, _)) = found.get(&plugin.name) {
            bail!(
                "`{}` and `{}` both declare the plugin `{}`; rename one in its {MARK}",
                other.manifest.display(),
                plugin.manifest.display(),
                plugin.name,
            );
        }
        let file = source.file();
        if let Some((other, _)) = found.values().find(|(_, other)| other.file() == file) {
            bail!(
                "`{}` and `{}` both build `{file}`, and there is one file of that name; \
                 give one of them another `name` in its [lib]",
                other.manifest.display(),
                plugin.manifest.display(),
            );
        }
        found.insert(plugin.name.clone(), (plugin, source));
        Ok(())
    };
    for package in workspace.workspace_packages() {
        if let Some((plugin, of_cargo)) = plugin(package)? {
            add(plugin, Source::Crate(of_cargo))?;
        }
    }
    for (plugin, foreign) in foreign::plugins(workspace)? {
        add(plugin, Source::Foreign(foreign))?;
    }
    Ok(found.into_values().collect())
}

impl Source {
    /// What cargo builds.
    pub(crate) fn of_cargo(&self) -> Option<&Crate> {
        match self {
            Self::Crate(of_cargo) => Some(of_cargo),
            Self::Foreign(_) => None,
        }
    }

    /// The name of the file that is built.
    fn file(&self) -> String {
        match self {
            Self::Crate(of_cargo) => format!("lib{}.so", of_cargo.target),
            Self::Foreign(foreign) => foreign.file(),
        }
    }
}

/// The requested ones of `plugins`; all if none was requested.
pub(crate) fn select(
    plugins: &[(Plugin, Source)],
    names: &[String],
) -> Result<Vec<(Plugin, Source)>> {
    for name in names {
        if !plugins
            .iter()
            .any(|(plugin, _)| plugin.name == *name.as_str())
        {
            let known: Vec<_> = plugins
                .iter()
                .map(|(plugin, _)| format!("`{}`", plugin.name))
                .collect();
            bail!(
                "no plugin `{name}` in this workspace; its plugins are: {}",
                known.join(", ")
            );
        }
    }
    let is_wanted = |(plugin, _): &&(Plugin, Source)| {
        names.is_empty() || names.iter().any(|name| plugin.name == *name.as_str())
    };
    Ok(plugins.iter().filter(is_wanted).cloned().collect())
}

fn plugin(package: &Package) -> Result<Option<(Plugin, Crate)>> {
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
    let of_cargo = Crate {
        name: name.clone(),
        id: package.id.clone(),
        target: target.name.replace('-', "_"),
        manifest: manifest.clone(),
    };
    let plugin = Plugin {
        package: package_of(declared.package, &name)?,
        name,
        version: package.version.clone(),
        handover: declared.handover,
        requires: declared.requires,
        wants: declared.wants,
        manifest,
    };
    Ok(Some((plugin, of_cargo)))
}

/// The directory that a plugin is staged in.
pub(super) fn package_of(
    declared: Option<PackageName>,
    plugin: &PluginName,
) -> Result<PackageName> {
    match declared {
        Some(package) => Ok(package),
        None => Ok(PackageName::new(plugin.as_str())?),
    }
}
