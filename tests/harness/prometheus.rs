//! Prometheus and its lint, as Debian ships them.
//!
//! They are unpacked, not installed: the package would start a service.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use crate::{BUILT, run, scratch};

/// The directory of the programs, unpacked once.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = scratch().join("prometheus");
    let programs = root.join("usr/bin");
    if programs.is_dir() {
        return programs;
    }
    // Other test programs may be about to do the same.
    let made = tempfile::tempdir_in(scratch()).expect("a directory can be made");
    let mut download = Command::new("apt-get");
    download
        .current_dir(made.path())
        .args(["download", "prometheus"]);
    run(&mut download, BUILT).ok();
    let package = fs::read_dir(made.path()).expect("it is a directory");
    let package = package
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|it| it == "deb"))
        .expect("apt-get has downloaded a package");
    let unpacked = made.path().join("unpacked");
    let mut unpack = Command::new("dpkg-deb");
    run(unpack.arg("--extract").args([&package, &unpacked]), BUILT).ok();
    if fs::rename(&unpacked, &root).is_err() {
        assert!(programs.is_dir(), "`{}` cannot be made", root.display());
    }
    programs
});

/// `prometheus` or `promtool`.
pub fn prometheus(program: &str) -> Command {
    Command::new(Path::join(&PROGRAMS, program))
}

/// The names of the host's metrics in a text, without what a histogram adds to them.
pub fn hotmerge_metrics(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |it: char| it.is_ascii_lowercase() || it == '_';
    text.split(move |it: char| !is_part(it))
        .filter(|word| word.starts_with("hotmerge_") && !word.ends_with('_'))
        .map(|name| {
            let bare = ["_bucket", "_count", "_sum"];
            let bare = bare.iter().find_map(|ending| name.strip_suffix(ending));
            bare.unwrap_or(name)
        })
}
