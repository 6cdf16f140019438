//! What a host found in the directory during its last run. A package that is half-merged at the host's
//! start counts as unchanged, as long as a part of it exists.

use std::time::Instant;

use hotmerge_meta::{FileStamp, PackageName, PluginMeta};

use super::{
    Findings, Found, Scanner,
    package::{Known, Package},
};

/// A stamp that no file has, so that every file differs.
const NEVER: FileStamp = FileStamp {
    dev: 0,
    ino: 0,
    size: 0,
    mtime_ns: 0,
    ctime_ns: 0,
};

impl Scanner {
    /// Adds a plugin that was in this package during the host's last run. Call it before the first pass.
    pub fn remember(&mut self, package: &PackageName, meta: PluginMeta) {
        let path = format!("{package}/{}", meta.file);
        let known = Known {
            path,
            stamp: Some(NEVER),
            meta,
        };
        let name = known.meta.name.clone();
        self.owners.insert(name.clone(), package.clone());
        let package = self
            .packages
            .entry(package.clone())
            .or_insert_with(|| Package::new(package));
        package.files.insert(name, known);
        package.is_remembered = true;
        self.restless.insert(package.name.clone());
    }

    /// Drops a plugin that is only remembered: another package contains it now.
    pub(super) fn hand_on(&mut self, plugin: &str) {
        if let Some(owner) = self.owners.get(plugin)
            && let Some(package) = self.packages.get_mut(owner)
            && package.is_remembered
        {
            package.files.remove(plugin);
            self.owners.remove(plugin);
        }
    }

    /// Reports packages that stay as they were although they cannot be read.
    pub(super) fn tell_remembered(&mut self, now: Instant, findings: &mut Findings) {
        for name in self.restless.clone() {
            let Some(package) = self.packages.get_mut(&name) else {
                continue;
            };
            let may_settle = package
                .unsettled
                .as_ref()
                .is_some_and(|(since, _)| now < *since + self.settle);
            if !package.is_remembered || package.missing.is_some() || may_settle {
                continue;
            }
            package.is_remembered = false;
            let found = package.files.values().map(|known| Found {
                package: package.name.clone(),
                meta: known.meta.clone(),
            });
            findings.changed.extend(found);
            self.note(&name);
        }
    }
}
