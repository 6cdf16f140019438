//! Scans the plugin directory for changes: all of it, in one pass of `stat`, or only packages
//! that may have changed.
//!
//! The directory is the truth. A package whose files have the same stamps as before costs one `stat`
//! per file; only changed files are opened. A package that is not valid yet is *unsettled*: it becomes a
//! problem when the settling time is over, and never affects what runs. Every scan includes packages
//! that are not at rest.
//!
//! Absent on purpose: reading plugin files, and deciding what runs. Time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hotmerge_meta::{PackageName, PluginMeta, PluginName, Trust, control::Problem, stamp};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat},
    io::Errno,
};

pub use super::dirty::{Change, Dirty};
use super::{
    dirty::is_ignored,
    errors::{DirError, NoPackage, Unopened},
};
use package::Package;

mod adopt;
mod package;
mod problems;
mod remembered;

/// How soon an unsettled package is scanned again without a hint.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A plugin that is new in the directory, or whose meta or file changed.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its package.
    pub package: PackageName,
    /// Its meta.
    pub meta: PluginMeta,
}

/// The findings of one scan.
#[derive(Debug, Default)]
pub struct Findings {
    /// New and changed plugins.
    pub changed: Vec<Found>,
    /// Plugins that are no longer in the directory.
    pub gone: Vec<PluginName>,
    /// What cannot be used, and why. Each scan returns the complete list.
    pub problems: Vec<Problem>,
    /// When to scan again without a hint, because something has not settled.
    pub next_look: Option<Instant>,
}

/// Watches packages. A scan covers each package before it examines it, so that no change falls between
/// the scan and the watch.
pub trait Cover {
    /// Watches a package's directory from now on; again if the directory may have been replaced.
    fn cover(&mut self, package: &PackageName, is_replaced: bool);

    /// Stops watching a package that no longer exists.
    fn uncover(&mut self, package: &PackageName);
}

/// Watches nothing.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Cover for Unwatched {
    fn cover(&mut self, _package: &PackageName, _is_replaced: bool) {}

    fn uncover(&mut self, _package: &PackageName) {}
}

/// The scanner's knowledge of the directory between two scans.
#[derive(Debug)]
pub struct Scanner {
    dir: PathBuf,
    trust: Trust,
    /// Whether a changed signature is a change of its package.
    signatures: bool,
    settle: Duration,
    packages: HashMap<PackageName, Package>,
    owners: HashMap<PluginName, PackageName>,
    /// Packages that are part of every scan.
    restless: BTreeSet<PackageName>,
    /// Entries that are not packages, and why.
    strays: BTreeMap<String, String>,
    root_unsettled: Option<Instant>,
    passes: u64,
}

/// One scan in progress.
struct Pass<'a> {
    root: OwnedFd,
    now: Instant,
    findings: &'a mut Findings,
    cover: &'a mut dyn Cover,
}

impl Scanner {
    /// A scanner without knowledge, whose first scan covers everything.
    pub fn new(dir: PathBuf, settle: Duration) -> Self {
        Self {
            dir,
            trust: Trust::anybody(),
            signatures: false,
            settle,
            packages: HashMap::new(),
            owners: HashMap::new(),
            restless: BTreeSet::new(),
            strays: BTreeMap::new(),
            root_unsettled: None,
            passes: 0,
        }
    }

    /// Trusts only files that `trust` accepts.
    #[must_use]
    pub fn trusting(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// Whether to examine signatures too.
    pub(crate) fn look_at_signatures(&mut self, signatures: bool) {
        self.signatures = signatures;
    }

    /// A plugin as it was last found.
    pub fn find(&self, plugin: &str) -> Option<Found> {
        let (_, package) = self.owners.get_key_value(plugin)?;
        let known = self.packages.get(package)?.files.get(plugin)?;
        Some(Found {
            package: package.clone(),
            meta: known.meta.clone(),
        })
    }

    /// Notes that a plugin's file, which the last scan saw, was missing when it was to be read: if it
    /// returns with the same stamp, it counts as new.
    pub fn lost(&mut self, package: &PackageName, plugin: &PluginName) {
        if let Some(package) = self.packages.get_mut(package)
            && let Some(known) = package.files.get_mut(plugin)
        {
            known.stamp = None;
            package.is_lost = true;
            self.restless.insert(package.name.clone());
        }
    }

    /// Whether a scan without a hint would have nothing to examine.
    pub fn is_at_rest(&self) -> bool {
        self.restless.is_empty() && self.root_unsettled.is_none()
    }

    /// Scans the whole directory once.
    pub fn scan(&mut self, now: Instant) -> Findings {
        self.look(now, &Dirty::ALL, &mut Unwatched)
    }

    /// Scans what may have changed, and what has not settled.
    pub fn look(&mut self, now: Instant, dirty: &Dirty, cover: &mut dyn Cover) -> Findings {
        let mut findings = Findings::default();
        let looked = open_dir(&self.dir, &self.trust).and_then(|root| {
            let mut pass = Pass {
                root,
                now,
                findings: &mut findings,
                cover,
            };
            match dirty {
                // A directory that was missing may be another one now.
                Dirty::Named(names) if self.root_unsettled.is_none() && self.passes > 0 => {
                    self.look_at_some(names, &mut pass)
                }
                _ => self.look_at_all(&mut pass),
            }
        });
        match looked {
            Ok(()) => {
                self.root_unsettled = None;
                self.tell_remembered(now, &mut findings);
                self.tell_problems(now, &mut findings);
            }
            Err(error) => self.root_is_unreadable(error.to_string(), now, &mut findings),
        }
        findings
    }

    fn look_at_all(&mut self, pass: &mut Pass<'_>) -> Result<(), DirError> {
        self.passes += 1;
        self.strays.clear();
        let entries = Dir::read_from(&pass.root).map_err(|error| self.unlisted(error))?;
        for entry in entries {
            let entry = entry.map_err(|error| self.unlisted(error))?;
            let Ok(name) = entry.file_name().to_str() else {
                let name = entry.file_name().to_string_lossy().into_owned();
                let reason = "is not a UTF-8 name; rename it".to_owned();
                self.strays.insert(name, reason);
                continue;
            };
            if !is_ignored(name) {
                self.look_at_entry(name, entry.file_type(), None, pass);
            }
        }
        self.look_for_missing(pass);
        Ok(())
    }

    fn look_at_some(
        &mut self,
        dirty: &BTreeMap<PackageName, Change>,
        pass: &mut Pass<'_>,
    ) -> Result<(), DirError> {
        let restless = self.restless.iter().map(|name| (name.clone(), None));
        let dirty = dirty
            .iter()
            .map(|(name, change)| (name.clone(), Some(*change)));
        // For a package named twice, the last change counts.
        let names: BTreeMap<_, _> = restless.chain(dirty).collect();
        for (name, change) in names {
            match statat(&pass.root, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let kind = FileType::from_raw_mode(stat.st_mode);
                    self.look_at_entry(name.as_str(), kind, change, pass);
                }
                Err(Errno::NOENT) => {
                    self.strays.remove(name.as_str());
                    pass.cover.uncover(&name);
                    self.missing(&name, pass.now, pass.findings);
                    self.note(&name);
                }
                Err(error) => return Err(self.unlisted(error)),
            }
        }
        Ok(())
    }

    /// Reads a package that was hinted at regardless of its stamps, because writes to mapped memory do not
    /// change them.
    fn look_at_entry(
        &mut self,
        name: &str,
        kind: FileType,
        told: Option<Change>,
        pass: &mut Pass<'_>,
    ) {
        let is_replaced = told == Some(Change::Directory);
        if kind == FileType::Directory
            && let Some(package) = self.packages.get_mut(name)
        {
            pass.cover.cover(&package.name, is_replaced);
            if told.is_none() && is_as_before(package, self.signatures, pass) {
                package.seen = self.passes;
                if !package.is_in_every_pass() {
                    self.restless.remove(name);
                }
                return;
            }
        }
        self.strays.remove(name);
        match classify(name, kind) {
            Ok(package) => {
                if !self.packages.contains_key(&package) {
                    pass.cover.cover(&package, is_replaced);
                }
                self.look_at(&package, pass);
                self.note(&package);
            }
            Err(error) => {
                self.strays.insert(name.to_owned(), error.to_string());
                // Something replaced the package's directory: that takes nothing out of service.
                if let Some(package) = self.packages.get_mut(name) {
                    package.seen = self.passes;
                }
            }
        }
    }

    /// Notes whether a package is part of every scan from now on.
    fn note(&mut self, name: &PackageName) {
        let is_in_every_pass = |package: &Package| package.is_in_every_pass();
        if self.packages.get(name).is_some_and(is_in_every_pass) {
            self.restless.insert(name.clone());
        } else {
            self.restless.remove(name);
        }
    }

    fn look_for_missing(&mut self, pass: &mut Pass<'_>) {
        let absent: Vec<_> = self
            .packages
            .values()
            .filter(|package| package.seen != self.passes)
            .map(|package| package.name.clone())
            .collect();
        for name in absent {
            pass.cover.uncover(&name);
            self.missing(&name, pass.now, pass.findings);
            self.note(&name);
        }
    }

    fn unlisted(&self, source: Errno) -> DirError {
        let dir = self.dir.clone();
        DirError::List { dir, source }
    }
}

/// The fast path of nearly all packages: the meta is unchanged, so that only the stamps of the files
/// are compared.
fn is_as_before(package: &mut Package, signatures: bool, pass: &mut Pass<'_>) -> bool {
    if !package.is_settled() {
        return false;
    }
    if stamp(&pass.root, &package.meta_path).ok().flatten() != package.meta_stamp {
        return false;
    }
    if signatures
        && stamp(&pass.root, &package.signature_path).ok().flatten() != package.signature_stamp
    {
        return false;
    }
    package.is_lost = false;
    for known in package.files.values_mut() {
        // A file that cannot be examined is reported when it is read.
        let seen = stamp(&pass.root, &known.path).unwrap_or(None);
        if seen != known.stamp {
            known.stamp = seen;
            pass.findings.changed.push(Found {
                package: package.name.clone(),
                meta: known.meta.clone(),
            });
        }
    }
    true
}

fn look_again(now: Instant, deadline: Instant, findings: &mut Findings) {
    let next = deadline.min(now + LOOK_AGAIN);
    findings.next_look = Some(findings.next_look.map_or(next, |other| other.min(next)));
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
/// If it does not exist, or others may write to it.
pub fn open_dir(dir: &Path, trust: &Trust) -> Result<OwnedFd, DirError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = openat(CWD, dir, flags, Mode::empty());
    let opened = opened.map_err(|source| DirError::Open {
        dir: dir.to_owned(),
        source,
    })?;
    trust.check_way(&opened, dir)?;
    Ok(opened)
}

/// Opens a package's directory, never through a symbolic link.
pub(crate) fn open_package(
    root: &OwnedFd,
    name: &PackageName,
    trust: &Trust,
) -> Result<OwnedFd, Unopened> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(root, name.as_str(), flags, Mode::empty());
    let opened = opened.map_err(|error| Unopened::Io(name.clone(), error))?;
    trust.check(&opened)?;
    Ok(opened)
}

#[cfg(test)]
mod tests;
