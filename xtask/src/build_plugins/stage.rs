//! From files that cargo built to packages in the staging directory.
//!
//! Invariant: nothing is staged before every file has been read and verified to be a plugin, and
//! unchanged files are not touched.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use hotmerge_meta::{
    Digest, FileName, Image, Meta, PackageName, PluginMeta, PluginName, package::Abi, publish,
};
use rustix::fs::FlockOperation;
use semver::Version;

use super::{
    compile::Built,
    discover::{MARK, Plugin, Unmarked},
    record::Record,
};

/// The result of staging a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is new, or its file or its entry in `plugin.meta` was written.
    Written,
    /// Nothing changed.
    Unchanged,
    /// The workspace no longer has it.
    Removed,
}

/// A plugin in the staging directory, or one that was in it.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    pub plugin: PluginName,
    pub version: Version,
    /// What was staged before.
    pub old_hash: Option<Digest>,
    /// What is staged now.
    pub hash: Option<Digest>,
    pub change: Change,
    /// Why it was removed, if the author may not have meant that.
    pub reason: Option<String>,
}

impl Staged {
    fn removed(old: &PluginMeta, unmarked: &[Unmarked]) -> Self {
        let library = unmarked
            .iter()
            .find(|library| old.file.as_str() == library.file);
        let why =
            |library: &Unmarked| format!("`{}` no longer has {MARK}", library.manifest.display());
        Self {
            reason: library.map(why),
            plugin: old.name.clone(),
            version: old.version.clone(),
            old_hash: Some(old.hash),
            hash: None,
            change: Change::Removed,
        }
    }
}

/// A package that another workspace had staged, and that workspace.
pub(crate) type Taken = (PackageName, PathBuf);

/// What to stage, and where.
pub(crate) struct Stage<'a> {
    pub staging: &'a Path,
    pub workspace: &'a Path,
    /// All plugins of the workspace; those that were not built stay as they are.
    pub plugins: &'a [Plugin],
    /// Libraries that could be plugins, but are not marked as such.
    pub unmarked: &'a [Unmarked],
    /// Whether all were built, so that packages of missing plugins can be removed.
    pub is_full: bool,
    /// The target of plugins built without an explicit target.
    pub host: &'a str,
}

impl Stage<'_> {
    /// Stages what was built.
    pub(crate) fn run(&self, built: &[(Plugin, Built)]) -> Result<(Vec<Staged>, Vec<Taken>)> {
        let mut packages = BTreeMap::<PackageName, Package>::new();
        for (plugin, built) in built {
            let (meta, file) = self.describe(plugin, built)?;
            let package = packages.entry(plugin.package.clone()).or_default();
            package.plugins.push(meta);
            package.files.push(file);
        }
        for (name, package) in &mut packages {
            package.old = Meta::read_path(&self.staging.join(name))
                .map_or_else(|_| Vec::new(), |meta| meta.plugin);
            self.keep_others(name, package);
            // All are checked before the first is published.
            package.meta = Some(Meta::new(package.plugins.clone())?);
        }
        fs::create_dir_all(self.staging).with_context(|| {
            format!(
                "failed to create the staging directory `{}`",
                self.staging.display()
            )
        })?;
        // No other driver may write its record before this one is written.
        let directory = File::open(self.staging)
            .with_context(|| format!("failed to open `{}`", self.staging.display()))?;
        rustix::fs::flock(&directory, FlockOperation::LockExclusive)
            .with_context(|| format!("failed to lock `{}`", self.staging.display()))?;
        let mut record = Record::load(self.staging, self.workspace)?;
        let mut staged = Vec::new();
        for (name, package) in &packages {
            staged.extend(package.publish(self.staging, name, self.unmarked)?);
            record.packages.insert(name.clone());
        }
        if self.is_full {
            staged.extend(self.remove_gone(&mut record, &packages)?);
        }
        let taken = record.take_over(self.staging)?;
        record.save(self.staging)?;
        staged.sort_by(|a, b| a.plugin.cmp(&b.plugin));
        Ok((staged, taken))
    }

    fn describe(
        &self,
        plugin: &Plugin,
        built: &Built,
    ) -> Result<(PluginMeta, (FileName, PathBuf))> {
        let doing = || format!("failed to stage `{}`", plugin.name);
        let name = built
            .file
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let file = FileName::new(name).with_context(doing)?;
        let bytes = fs::read(&built.file)
            .with_context(|| format!("failed to read `{}`", built.file.display()))
            .with_context(doing)?;
        let image = Image::normalise(bytes).with_context(doing)?;
        let header = image.header().with_context(doing)?;
        let meta = PluginMeta {
            name: plugin.name.clone(),
            version: plugin.version.clone(),
            file: file.clone(),
            hash: image.digest(),
            size: image.len() as u64,
            abi: Abi::from(&header),
            target: built.target.clone().unwrap_or_else(|| self.host.to_owned()),
            handover: plugin.handover,
            requires: plugin.requires.clone(),
            wants: plugin.wants.clone(),
        };
        Ok((meta, (file, built.file.clone())))
    }

    /// Several plugins may share a package: those that were not requested stay in it.
    fn keep_others(&self, name: &PackageName, package: &mut Package) {
        let is_kept = |old: &PluginMeta| {
            let is_here = self
                .plugins
                .iter()
                .any(|plugin| plugin.package == *name && plugin.name == old.name);
            is_here && !package.plugins.iter().any(|new| new.name == old.name)
        };
        let kept: Vec<_> = package
            .old
            .iter()
            .filter(|old| is_kept(old))
            .cloned()
            .collect();
        for old in kept {
            let file = self.staging.join(name).join(&old.file);
            package.files.push((old.file.clone(), file));
            package.kept.push(old.name.clone());
            package.plugins.push(old);
        }
    }

    /// Removes packages that this workspace staged earlier and no longer has.
    fn remove_gone(
        &self,
        record: &mut Record,
        packages: &BTreeMap<PackageName, Package>,
    ) -> Result<Vec<Staged>> {
        let mut removed = Vec::new();
        for name in record.packages.clone() {
            if packages.contains_key(&name) {
                continue;
            }
            let directory = self.staging.join(&name);
            if let Ok(meta) = Meta::read_path(&directory) {
                remove(&directory, &meta)
                    .with_context(|| format!("failed to remove the package `{name}`"))?;
                let plugins = meta.plugin.iter();
                removed.extend(plugins.map(|plugin| Staged::removed(plugin, self.unmarked)));
            }
            record.packages.remove(&name);
        }
        Ok(removed)
    }
}

/// A package that is about to be published.
#[derive(Debug, Default)]
struct Package {
    old: Vec<PluginMeta>,
    plugins: Vec<PluginMeta>,
    files: Vec<(FileName, PathBuf)>,
    /// Plugins that were not built this time.
    kept: Vec<PluginName>,
    meta: Option<Meta>,
}

impl Package {
    fn publish(
        &self,
        staging: &Path,
        name: &PackageName,
        unmarked: &[Unmarked],
    ) -> Result<Vec<Staged>> {
        let meta = self.meta.as_ref().context("the package was checked")?;
        let files: Vec<_> = self
            .files
            .iter()
            .map(|(name, path)| (name.clone(), path.as_path()))
            .collect();
        let published = publish(staging, name, meta, &files)
            .with_context(|| format!("failed to stage the package `{name}`"))?;
        let built = meta
            .plugin
            .iter()
            .filter(|new| !self.kept.contains(&new.name));
        let built = built.map(|new| {
            let old = self.old.iter().find(|old| old.name == new.name);
            let is_written = old != Some(new) || published.written.contains(&new.file);
            Staged {
                plugin: new.name.clone(),
                version: new.version.clone(),
                old_hash: old.map(|old| old.hash),
                hash: Some(new.hash),
                reason: None,
                change: if is_written {
                    Change::Written
                } else {
                    Change::Unchanged
                },
            }
        });
        let is_gone = |old: &&PluginMeta| meta.get(old.name.as_str()).is_none();
        let gone = self.old.iter().filter(is_gone);
        let gone = gone.map(|old| Staged::removed(old, unmarked));
        Ok(built.chain(gone).collect())
    }
}

/// Removes what was published, `plugin.meta` first: without it the directory is not a package.
/// Foreign files stay.
fn remove(directory: &Path, meta: &Meta) -> Result<()> {
    let delete = |path: PathBuf| match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to delete `{}`", path.display()))
        }
        _ => Ok(()),
    };
    delete(directory.join(hotmerge_meta::META_FILE))?;
    delete(directory.join(hotmerge_meta::SIGNATURE_FILE))?;
    for plugin in &meta.plugin {
        delete(directory.join(&plugin.file))?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
            Err(error).with_context(|| format!("failed to delete `{}`", directory.display()))
        }
        _ => Ok(()),
    }
}
