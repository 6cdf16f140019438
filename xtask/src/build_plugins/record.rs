//! Which packages in a staging directory come from which workspace.
//!
//! A staging directory may be shared, and may be a host's own plugin directory: a
//! workspace may remove only what it put there itself. The file's name starts with a dot, so
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
    staging.join(format!(".hotmerge-workspace-{}.json", workspace.short()))
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
}
