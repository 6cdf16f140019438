//! What a host saw in the directory when it ran last. A package that a merge left half at the
//! host's start is the package that it was, as long as something of it is there.

use std::time::Instant;

use hotmerge_meta::{FileStamp, PackageName, PluginMeta};

use super::{
    Findings, Found, Scanner,
    package::{Known, Package},
};

/// No file has it, so that whatever is found differs.
const NEVER: FileStamp = FileStamp {
    dev: 0,
    ino: 0,
    size: 0,
    mtime_ns: 0,
    ctime_ns: 0,
};

impl Scanner {
    /// A plugin that was in this package when the host ran last. Before the first pass.
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

    /// Gives up what is only remembered of a plugin: another package has it now.
    pub(super) fn hand_on(&mut self, plugin: &str) {
        if let Some(owner) = self.owners.get(plugin)
            && let Some(package) = self.packages.get_mut(owner)
            && package.is_remembered
        {
            package.files.remove(plugin);
            self.owners.remove(plugin);
        }
    }

    /// Tells of packages that stay as they are though they cannot be read.
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
