//! A package directory, written the good way or any other.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hotmerge_meta::{META_FILE, Meta};

use crate::Variant;

/// A package directory of a test.
#[derive(Clone, Debug)]
pub struct Package {
    dir: PathBuf,
}

impl Package {
    /// The package at a path; nothing is made yet.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its `plugin.meta` is.
    pub fn meta_path(&self) -> PathBuf {
        self.dir.join(META_FILE)
    }

    /// Where a variant's file is.
    pub fn file_path(&self, variant: &Variant) -> PathBuf {
        self.dir.join(&variant.meta.file)
    }

    /// Puts plugins and their meta in place: files first, each by rename. Not synced to the
    /// disk, unlike what the driver stages.
    pub fn put(&self, variants: &[&Variant]) {
        self.put_files(variants);
        self.put_meta(variants);
    }

    /// The first half of [`Package::put`].
    ///
    /// # Panics
    /// If the system refuses.
    pub fn put_files(&self, variants: &[&Variant]) {
        fs::create_dir_all(&self.dir).expect("the test's own directory");
        for variant in variants {
            self.replace(variant.meta.file.as_str(), &variant.bytes);
        }
    }

    /// The second half of [`Package::put`].
    ///
    /// # Panics
    /// If these cannot be in one package.
    pub fn put_meta(&self, variants: &[&Variant]) {
        let metas = variants.iter().map(|variant| variant.meta.clone());
        let meta = Meta::new(metas.collect()).expect("the plugins differ");
        self.write_meta(meta.to_toml());
    }

    /// Replaces `plugin.meta` by whatever it is.
    pub fn write_meta(&self, text: impl AsRef<[u8]>) {
        self.replace(META_FILE, text.as_ref());
    }

    /// Replaces a file by rename.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn replace(&self, name: &str, bytes: &[u8]) {
        let new = self.dir.join(".new");
        fs::write(&new, bytes).expect("the test's own directory");
        fs::rename(new, self.dir.join(name)).expect("the test's own directory");
    }

    /// Removes the whole package.
    ///
    /// # Panics
    /// If there is none.
    pub fn remove(&self) {
        fs::remove_dir_all(&self.dir).expect("there is a package");
    }
}
