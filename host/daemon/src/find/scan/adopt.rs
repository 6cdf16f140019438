//! Reads one package's meta, and compares it with the known one.

use std::{
    os::fd::OwnedFd,
    time::{Instant, SystemTime},
};

use hotmerge_meta::{Meta, PackageName, Trust, stamp};

use super::{
    super::errors::NoMeta,
    Findings, Found, Pass, Scanner, look_again, open_package,
    package::{Known, Package},
};

impl Scanner {
    pub(super) fn look_at(&mut self, name: &PackageName, pass: &mut Pass<'_>) {
        let package = self
            .packages
            .entry(name.clone())
            .or_insert_with(|| Package::new(name));
        package.seen = self.passes;
        let seen = match stamp(&pass.root, &package.meta_path) {
            Ok(Some(seen)) => seen,
            Ok(None) => return self.without_meta(name, pass),
            Err(error) => return self.unsettled(name, pass.now, &NoMeta::Unexamined(error)),
        };
        package.missing = None;
        match read_meta(&pass.root, name, &self.trust) {
            Ok(meta) => {
                // A later change could still leave the same stamp, so this file is read again.
                let is_telling = !seen.is_fresh(SystemTime::now());
                package.meta_stamp = is_telling.then_some(seen);
                package.unsettled = None;
                package.is_lost = false;
                self.adopt(name, meta, pass);
            }
            Err(error) => self.unsettled(name, pass.now, &error),
        }
    }

    /// Adopts a meta that was read again.
    fn adopt(&mut self, name: &PackageName, meta: Meta, pass: &mut Pass<'_>) {
        let Some(package) = self.packages.get_mut(name) else {
            return;
        };
        package.conflicts.clear();
        package.is_remembered = false;
        let signature = match self.signatures {
            true => stamp(&pass.root, &package.signature_path).ok().flatten(),
            false => None,
        };
        let is_as_signed = signature == package.signature_stamp;
        package.signature_stamp = signature;
        let mut before = std::mem::take(&mut package.files);
        for meta in meta.plugin {
            if self
                .owners
                .get(&meta.name)
                .is_some_and(|owner| owner != name)
            {
                self.hand_on(meta.name.as_str());
            }
            let Some(package) = self.packages.get_mut(name) else {
                return;
            };
            match self.owners.get(&meta.name) {
                Some(owner) if owner != name => {
                    package.conflicts.push(meta.name);
                    continue;
                }
                _ => self.owners.insert(meta.name.clone(), name.clone()),
            };
            let path = format!("{name}/{}", meta.file);
            let stamp = stamp(&pass.root, &path).unwrap_or(None);
            let known = Known { meta, path, stamp };
            let same = before
                .remove(&known.meta.name)
                .is_some_and(|old| old.meta == known.meta && old.stamp == known.stamp)
                && is_as_signed;
            if !same {
                pass.findings.changed.push(Found {
                    package: name.clone(),
                    meta: known.meta.clone(),
                });
            }
            package.files.insert(known.meta.name.clone(), known);
        }
        for plugin in before.into_keys() {
            self.owners.remove(&plugin);
            pass.findings.gone.push(plugin);
        }
    }

    /// A package without a meta is being installed, being removed, or a mistake.
    fn without_meta(&mut self, name: &PackageName, pass: &mut Pass<'_>) {
        let Some(package) = self.packages.get(name) else {
            return;
        };
        let leaving = !package.files.is_empty()
            && package
                .files
                .values()
                .all(|known| matches!(stamp(&pass.root, &known.path), Ok(None)));
        if leaving {
            self.missing(name, pass.now, pass.findings);
        } else {
            self.unsettled(name, pass.now, &NoMeta::Missing);
        }
    }

    /// A package that is being replaced may be absent for a moment.
    pub(super) fn missing(&mut self, name: &PackageName, now: Instant, findings: &mut Findings) {
        let Some(package) = self.packages.get_mut(name) else {
            return;
        };
        let since = *package.missing.get_or_insert(now);
        if now < since + self.settle && !package.files.is_empty() {
            look_again(now, since + self.settle, findings);
            return;
        }
        if let Some(package) = self.packages.remove(name) {
            for plugin in package.files.into_keys() {
                self.owners.remove(&plugin);
                findings.gone.push(plugin);
            }
        }
    }

    fn unsettled(&mut self, name: &PackageName, now: Instant, why: &NoMeta) {
        let Some(package) = self.packages.get_mut(name) else {
            return;
        };
        let reason = why.to_string();
        // The same problem keeps its time; another one restarts it.
        let since = match package.unsettled.take() {
            Some((since, before)) if before == reason => since,
            _ => now,
        };
        package.unsettled = Some((since, reason));
    }
}

fn read_meta(root: &OwnedFd, name: &PackageName, trust: &Trust) -> Result<Meta, NoMeta> {
    let package = open_package(root, name, trust)?;
    Ok(Meta::read_trusted(package, trust)?)
}
