//! Copies the sources without build artifacts.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use walkdir::WalkDir;

/// Copies a source tree to a directory that does not exist yet.
pub(super) fn sources(from: &Path, to: &Path) -> Result<()> {
    let built = |name: &std::ffi::OsStr| name == "target" || name == ".git";
    let entries = WalkDir::new(from)
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !built(entry.file_name()));
    for entry in entries {
        let entry = entry.context("failed to read the sources")?;
        let path = to.join(entry.path().strip_prefix(from)?);
        if entry.file_type().is_dir() {
            fs::create_dir(&path)
        } else if entry.file_type().is_file() {
            fs::copy(entry.path(), &path).map(drop)
        } else {
            Ok(())
        }
        .with_context(|| format!("failed to copy to `{}`", path.display()))?;
    }
    Ok(())
}
