//! The rescan: one `stat` pass over the plugin directory that finds what is worth a look.
//!
//! The directory is the truth. A package whose files carry the same stamps as last time
//! costs one `stat` a file and nothing else; only what changed is opened. Whatever cannot
//! be understood yet is *unsettled*: it becomes a problem when the settling time is over,
//! and it never disturbs what runs.
//!
//! Absent on purpose: plugin files are not read here, and nothing is decided about what
//! runs. Time comes in as an argument.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use hotmerge_meta::{
    FileStamp, META_FILE, Meta, PackageName, PluginMeta, PluginName, control::Problem, stamp,
};
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, openat},
    io::Errno,
};

use super::errors::{DirError, NoMeta, NoPackage, Unopened};

mod remembered;

/// How soon an unsettled package is looked at again if nothing hints earlier.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A plugin that is new in the directory, or whose meta or file changed.
#[derive(Clone, Debug)]
pub struct Found {
    /// The package it is in.
    pub package: PackageName,
    /// What its meta says.
    pub meta: PluginMeta,
}

/// What one pass found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is worth a look.
    pub changed: Vec<Found>,
    /// What the directory does not have any more.
    pub gone: Vec<PluginName>,
    /// What cannot be used, and why. Complete at each pass.
    pub problems: Vec<Problem>,
    /// When to pass again even without a hint, because something has not settled.
    pub next_look: Option<Instant>,
}

/// What is remembered of the directory between two passes.
#[derive(Debug)]
pub struct Scanner {
    dir: PathBuf,
    settle: Duration,
    packages: HashMap<PackageName, Package>,
    owners: HashMap<PluginName, PackageName>,
    root_unsettled: Option<Instant>,
    passes: u64,
}

#[derive(Debug)]
struct Package {
    name: PackageName,
    /// The pass that saw it last.
    seen: u64,
    meta_path: String,
    /// None until one is known that tells every change.
    meta_stamp: Option<FileStamp>,
    files: BTreeMap<PluginName, Known>,
    /// Plugins of the meta that another package already has.
    conflicts: Vec<PluginName>,
    unsettled: Option<(Instant, String)>,
    missing: Option<Instant>,
    /// Known from the host's last run, and not seen yet.
    is_remembered: bool,
}

#[derive(Debug)]
struct Known {
    meta: PluginMeta,
    path: String,
    stamp: Option<FileStamp>,
}

impl Package {
    fn new(name: &PackageName) -> Self {
        Self {
            name: name.clone(),
            seen: 0,
            meta_path: format!("{name}/{META_FILE}"),
            meta_stamp: None,
            files: BTreeMap::new(),
            conflicts: Vec::new(),
            unsettled: None,
            missing: None,
            is_remembered: false,
        }
    }
}

impl Scanner {
    /// A scanner that knows nothing yet, so that its first pass finds everything.
    pub fn new(dir: PathBuf, settle: Duration) -> Self {
        Self {
            dir,
            settle,
            packages: HashMap::new(),
            owners: HashMap::new(),
            root_unsettled: None,
            passes: 0,
        }
    }

    /// Where a plugin was found last.
    pub fn find(&self, plugin: &str) -> Option<Found> {
        let (_, package) = self.owners.get_key_value(plugin)?;
        let known = self.packages.get(package)?.files.get(plugin)?;
        Some(Found {
            package: package.clone(),
            meta: known.meta.clone(),
        })
    }

    /// Whoever wanted to read a plugin's file found none, though the last pass had seen it: it may
    /// be back with the same stamp, and is new then.
    pub fn lost(&mut self, package: &PackageName, plugin: &PluginName) {
        let package = self.packages.get_mut(package);
        if let Some(known) = package.and_then(|it| it.files.get_mut(plugin)) {
            known.stamp = None;
        }
    }

    /// Looks at the whole directory once.
    pub fn scan(&mut self, now: Instant) -> Findings {
        let mut findings = Findings::default();
        match self.pass(now, &mut findings) {
            Ok(()) => self.root_unsettled = None,
            Err(error) => {
                let since = *self.root_unsettled.get_or_insert(now);
                let reason = error.to_string();
                self.unsettled_or_problem(now, since, String::new(), reason, &mut findings);
            }
        }
        findings
    }

    fn pass(&mut self, now: Instant, findings: &mut Findings) -> Result<(), DirError> {
        let root = open_dir(&self.dir)?;
        self.passes += 1;
        let entries = Dir::read_from(&root).map_err(|error| self.unlisted(error))?;
        for entry in entries {
            let entry = entry.map_err(|error| self.unlisted(error))?;
            let Ok(name) = entry.file_name().to_str() else {
                let name = entry.file_name().to_string_lossy().into_owned();
                findings
                    .problems
                    .push(problem(name, "is not a UTF-8 name; rename it"));
                continue;
            };
            if name.starts_with(['.', '#']) {
                continue;
            }
            if self.is_as_before(&root, name, entry.file_type(), findings) {
                continue;
            }
            match classify(name, entry.file_type()) {
                Ok(package) => self.look_at(&root, &package, now, findings),
                Err(error) => {
                    let reason = error.to_string();
                    findings.problems.push(problem(name.to_owned(), reason));
                    // Something stands in the place of a package: that takes nothing out
                    // of service.
                    if let Some(package) = self.packages.get_mut(name) {
                        package.seen = self.passes;
                    }
                }
            }
        }
        self.look_for_missing(now, findings);
        self.tell_remembered(now, findings);
        self.tell_conflicts(now, findings);
        Ok(())
    }

    /// The way of nearly all packages in nearly all passes: their meta is the one that is
    /// known, so that only the stamps of their files are left to compare.
    fn is_as_before(
        &mut self,
        root: &OwnedFd,
        name: &str,
        kind: FileType,
        findings: &mut Findings,
    ) -> bool {
        let Some(package) = self.packages.get_mut(name) else {
            return false;
        };
        let quiet = kind == FileType::Directory
            && package.unsettled.is_none()
            && package.conflicts.is_empty()
            && package.missing.is_none();
        if !quiet || package.meta_stamp.is_none() {
            return false;
        }
        if stamp(root, &package.meta_path).ok().flatten() != package.meta_stamp {
            return false;
        }
        package.seen = self.passes;
        look_at_files(root, package, findings);
        true
    }

    fn look_at(
        &mut self,
        root: &OwnedFd,
        name: &PackageName,
        now: Instant,
        findings: &mut Findings,
    ) {
        let package = self
            .packages
            .entry(name.clone())
            .or_insert_with(|| Package::new(name));
        package.seen = self.passes;
        let seen = match stamp(root, &package.meta_path) {
            Ok(Some(seen)) => seen,
            Ok(None) => return self.without_meta(root, name, now, findings),
            Err(error) => {
                return self.unsettled(name, now, &NoMeta::Unexamined(error), findings);
            }
        };
        package.missing = None;
        match read_meta(root, name) {
            Ok(meta) => {
                // Another one could still leave the very same stamp: this one is read again.
                let is_telling = !seen.is_fresh(SystemTime::now());
                package.meta_stamp = is_telling.then_some(seen);
                package.unsettled = None;
                self.adopt(root, name, meta, findings);
            }
            Err(error) => self.unsettled(name, now, &error, findings),
        }
    }

    /// Takes over a meta that was read anew.
    fn adopt(&mut self, root: &OwnedFd, name: &PackageName, meta: Meta, findings: &mut Findings) {
        let Some(package) = self.packages.get_mut(name) else {
            return;
        };
        package.conflicts.clear();
        package.is_remembered = false;
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
            let stamp = stamp(root, &path).unwrap_or(None);
            let known = Known { meta, path, stamp };
            let same = before
                .remove(&known.meta.name)
                .is_some_and(|old| old.meta == known.meta && old.stamp == known.stamp);
            if !same {
                findings.changed.push(Found {
                    package: name.clone(),
                    meta: known.meta.clone(),
                });
            }
            package.files.insert(known.meta.name.clone(), known);
        }
        for plugin in before.into_keys() {
            self.owners.remove(&plugin);
            findings.gone.push(plugin);
        }
    }

    /// A package without a meta is on its way in, on its way out, or a mistake.
    fn without_meta(
        &mut self,
        root: &OwnedFd,
        name: &PackageName,
        now: Instant,
        findings: &mut Findings,
    ) {
        let Some(package) = self.packages.get(name) else {
            return;
        };
        let leaving = !package.files.is_empty()
            && package
                .files
                .values()
                .all(|known| matches!(stamp(root, &known.path), Ok(None)));
        if leaving {
            self.missing(name, now, findings);
        } else {
            self.unsettled(name, now, &NoMeta::Missing, findings);
        }
    }

    fn look_for_missing(&mut self, now: Instant, findings: &mut Findings) {
        let absent: Vec<_> = self
            .packages
            .values()
            .filter(|package| package.seen != self.passes)
            .map(|package| package.name.clone())
            .collect();
        for name in absent {
            self.missing(&name, now, findings);
        }
    }

    /// A package that is being replaced may be absent for a moment.
    fn missing(&mut self, name: &PackageName, now: Instant, findings: &mut Findings) {
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

    fn unsettled(
        &mut self,
        name: &PackageName,
        now: Instant,
        why: &NoMeta,
        findings: &mut Findings,
    ) {
        let Some(package) = self.packages.get_mut(name) else {
            return;
        };
        let reason = why.to_string();
        // The same trouble goes on; another one starts anew.
        let since = match package.unsettled.take() {
            Some((since, before)) if before == reason => since,
            _ => now,
        };
        package.unsettled = Some((since, reason.clone()));
        self.unsettled_or_problem(now, since, name.to_string(), reason, findings);
    }

    fn unsettled_or_problem(
        &self,
        now: Instant,
        since: Instant,
        package: String,
        reason: String,
        findings: &mut Findings,
    ) {
        if now < since + self.settle {
            look_again(now, since + self.settle, findings);
        } else {
            findings.problems.push(problem(package, reason));
        }
    }

    fn tell_conflicts(&self, now: Instant, findings: &mut Findings) {
        for (name, package) in &self.packages {
            for plugin in &package.conflicts {
                match self.owners.get(plugin) {
                    Some(owner) => findings.problems.push(problem(
                        name.to_string(),
                        format!(
                            "plugin `{plugin}` is also in package `{owner}`, which is the one \
                             that counts; remove one of the two"
                        ),
                    )),
                    // The other package had it until this very pass.
                    None => look_again(now, now, findings),
                }
            }
        }
        findings
            .problems
            .sort_by(|a, b| (&a.package, &a.reason).cmp(&(&b.package, &b.reason)));
    }

    fn unlisted(&self, source: Errno) -> DirError {
        let dir = self.dir.clone();
        DirError::List { dir, source }
    }
}

fn look_at_files(root: &OwnedFd, package: &mut Package, findings: &mut Findings) {
    for known in package.files.values_mut() {
        // A file that cannot be examined is for the one who reads it to report.
        let seen = stamp(root, &known.path).unwrap_or(None);
        if seen != known.stamp {
            known.stamp = seen;
            findings.changed.push(Found {
                package: package.name.clone(),
                meta: known.meta.clone(),
            });
        }
    }
}

fn look_again(now: Instant, deadline: Instant, findings: &mut Findings) {
    let next = deadline.min(now + LOOK_AGAIN);
    findings.next_look = Some(findings.next_look.map_or(next, |other| other.min(next)));
}

fn problem(package: String, reason: impl Into<String>) -> Problem {
    Problem {
        package,
        reason: reason.into(),
    }
}

fn classify(name: &str, kind: FileType) -> Result<PackageName, NoPackage> {
    match kind {
        FileType::Directory | FileType::Unknown => Ok(name.parse()?),
        FileType::Symlink => Err(NoPackage::Symlink),
        _ => Err(NoPackage::NoDirectory),
    }
}

/// Opens a plugin directory.
///
/// # Errors
/// One sentence for the operator.
pub fn open_dir(dir: &Path) -> Result<OwnedFd, DirError> {
    openat(
        CWD,
        dir,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|source| {
        let dir = dir.to_owned();
        DirError::Open { dir, source }
    })
}

/// Opens a package's directory, never through a symbolic link.
pub(crate) fn open_package(root: &OwnedFd, name: &PackageName) -> Result<OwnedFd, Unopened> {
    openat(
        root,
        name.as_str(),
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| Unopened(name.clone(), error))
}

fn read_meta(root: &OwnedFd, name: &PackageName) -> Result<Meta, NoMeta> {
    Ok(Meta::read(open_package(root, name)?)?)
}

#[cfg(test)]
mod tests;
