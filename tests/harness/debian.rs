//! Third-party programs, as Debian ships them.
//!
//! They are unpacked, not installed: a package may start a service.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{BUILT, run, scratch};

/// The directory into which packages are unpacked, once for all test programs.
///
/// # Panics
/// If they cannot be had.
pub(crate) fn unpacked(name: &str, packages: &[&str]) -> PathBuf {
    let root = scratch().join(name);
    if root.is_dir() {
        return root;
    }
    // Other test programs may be about to do the same.
    let made = tempfile::tempdir_in(scratch()).expect("a directory can be made");
    let mut download = Command::new("apt-get");
    download
        .current_dir(made.path())
        .arg("download")
        .args(packages);
    run(&mut download, BUILT).ok();
    let all = made.path().join("unpacked");
    for entry in fs::read_dir(made.path()).expect("it is a directory") {
        let package = entry.expect("it can be read").path();
        if package.extension().is_some_and(|it| it == "deb") {
            unpack(&package, &all);
        }
    }
    if fs::rename(&all, &root).is_err() {
        assert!(root.is_dir(), "`{}` cannot be made", root.display());
    }
    root
}

fn unpack(package: &Path, to: &Path) {
    let mut unpack = Command::new("dpkg-deb");
    run(unpack.arg("--extract").args([package, to]), BUILT).ok();
}
