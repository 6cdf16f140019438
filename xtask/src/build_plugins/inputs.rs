//! Everything that decides with which features cargo builds a plugin's dependencies.
//!
//! Cargo.lock pins packages from registries and git. What remains are the manifests of packages in directories, Cargo.lock, cargo's
//! configuration, and what the driver asks for. Features that depend on flags of the compiler
//! need not be here: with the flags, cargo's names for all files change.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use hotmerge_meta::Digest;

/// All inputs except manifests.
#[derive(Clone, Debug)]
pub(super) struct Inputs<'a> {
    root: &'a Path,
    asked: String,
}

impl<'a> Inputs<'a> {
    /// The inputs of the workspace at `root` for the build request `asked`.
    pub(super) fn new(root: &'a Path, asked: String) -> Self {
        Self { root, asked }
    }

    /// The hash of all of it, for packages with these manifests.
    pub(super) fn digest(&self, manifests: &BTreeSet<PathBuf>) -> Digest {
        let mut files =
            BTreeSet::from([self.root.join("Cargo.lock"), self.root.join("Cargo.toml")]);
        files.extend(cargo_config2::Walk::new(self.root));
        // A package inherits from its workspace, wherever above it that may be.
        let above = manifests
            .iter()
            .flat_map(|manifest| manifest.ancestors().skip(1));
        files.extend(above.map(|directory| directory.join("Cargo.toml")));
        let states = files
            .iter()
            .map(|file| (file, fs::read(file).ok().map(|bytes| Digest::of(&bytes))));
        let states: Vec<_> = states.collect();
        Digest::of(format!("{} {states:?}", self.asked).as_bytes())
    }
}
