//! Which packages in a staging directory come from which workspace.
//!
//! A staging directory may be shared, and may be a host's own plugin directory: a
//! workspace may remove only what it put there itself and no other workspace has staged since. A
//! package belongs to the workspace that staged it last. The file's name starts with a dot, so
//! hosts and `src_install` globs ignore it.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use hotmerge_meta::{Digest, PackageName};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

const PREFIX: &str = ".hotmerge-workspace-";

/// What one workspace has staged in one directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    workspace: PathBuf,
    pub packages: BTreeSet<PackageName>,
}

impl Record {
    /// What `workspace` has staged in `staging`; nothing if unknown.
    pub(super) fn load(staging: &Path, workspace: &Path) -> Result<Self> {
        let path = path(staging, workspace);
        let empty = || Self {
            workspace: workspace.to_owned(),
            packages: BTreeSet::new(),
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty()),
            Err(error) => {
                return Err(error).with_context(|| format!("failed to read `{}`", path.display()));
            }
        };
        let record: Self = serde_json::from_slice(&text)
            .with_context(|| format!("`{}` is damaged; delete it", path.display()))?;
        Ok(if record.workspace == workspace {
            record
        } else {
            empty()
        })
    }

    /// Takes the packages of this record out of the records of other workspaces, and returns
    /// them with their previous owners.
    ///
    /// A workspace that is no longer at its path has moved; nothing was taken from it.
    pub(super) fn take_over(&self, staging: &Path) -> Result<Vec<(PackageName, PathBuf)>> {
        let mut taken = Vec::new();
        for mut other in self.others(staging)? {
            let (ours, theirs) = std::mem::take(&mut other.packages)
                .into_iter()
                .partition(|name| self.packages.contains(name));
            let ours: BTreeSet<_> = ours;
            other.packages = theirs;
            if ours.is_empty() {
                continue;
            }
            other.save(staging)?;
            if other.workspace.exists() {
                taken.extend(ours.into_iter().map(|name| (name, other.workspace.clone())));
            }
        }
        Ok(taken)
    }

    /// The records of other workspaces. An unreadable one is skipped: its own workspace reports it.
    fn others(&self, staging: &Path) -> Result<Vec<Self>> {
        let own = path(staging, &self.workspace);
        let mut others = Vec::new();
        for entry in fs::read_dir(staging)
            .with_context(|| format!("failed to list `{}`", staging.display()))?
        {
            let entry = entry?;
            let is_record = entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(".json"));
            if !is_record || entry.path() == own {
                continue;
            }
            let record = fs::read(entry.path()).ok();
            others.extend(record.and_then(|text| serde_json::from_slice(&text).ok()));
        }
        Ok(others)
    }

    /// Saves the record if it changed.
    pub(super) fn save(&self, staging: &Path) -> Result<()> {
        if *self == Self::load(staging, &self.workspace)? {
            return Ok(());
        }
        let path = path(staging, &self.workspace);
        self.write(staging, &path)
            .with_context(|| format!("failed to write `{}`", path.display()))
    }

    fn write(&self, staging: &Path, path: &Path) -> Result<()> {
        let mut file = NamedTempFile::with_prefix_in(".hotmerge-", staging)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.persist(path)?;
        Ok(())
    }
}

fn path(staging: &Path, workspace: &Path) -> PathBuf {
    let workspace = Digest::of(workspace.as_os_str().as_encoded_bytes());
    staging.join(format!("{PREFIX}{}.json", workspace.short()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_sharing_a_directory_stay_separate() {
        let staging = tempfile::tempdir().unwrap();
        let mut one = Record::load(staging.path(), Path::new("/one")).unwrap();
        one.packages.insert(PackageName::new("a").unwrap());
        one.save(staging.path()).unwrap();
        assert_eq!(
            Record::load(staging.path(), Path::new("/one")).unwrap(),
            one
        );
        let two = Record::load(staging.path(), Path::new("/two")).unwrap();
        assert!(two.packages.is_empty());
    }

    #[test]
    fn a_package_belongs_to_its_last_stager() {
        let staging = tempfile::tempdir().unwrap();
        let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let load = |at: usize| Record::load(staging.path(), places[at].path()).unwrap();
        let shared = PackageName::new("shared").unwrap();
        for at in [0, 1] {
            let mut record = load(at);
            record.packages.insert(shared.clone());
            let taken = record.take_over(staging.path()).unwrap();
            let from_first = (shared.clone(), places[0].path().to_owned());
            assert_eq!(taken, [from_first][..at]);
            record.save(staging.path()).unwrap();
        }
        assert!(load(0).packages.is_empty());
        assert!(load(1).packages.contains(&shared));
    }
}
