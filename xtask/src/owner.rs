//! Which package a library that cargo built comes from.
//!
//! Cargo names the library of a package in a directory after its target alone, and believes
//! that a file of that name is the one that it built. Of two packages with one target name
//! the file is the one's that was built last, also after the other is the only one left. So
//! the driver, in the compiler's place, writes beside the library whose it is, and afterwards
//! compares that with what cargo says.
//!
//! Absent on purpose: what follows from a difference.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// Where cargo lets the compiler write, beside the files that it names.
const OUT_DIR: &str = "deps";

/// Says that the library which the compiler is about to make belongs to the package in
/// `manifest_dir`. Said before: a build that is cut off leaves a file that is built again.
pub(crate) fn claim(out_dir: &OsStr, crate_name: &str, manifest_dir: &OsStr) -> io::Result<()> {
    let path = note(&Path::new(out_dir).join(format!("lib{crate_name}.so")));
    if fs::read(&path).is_ok_and(|old| old == manifest_dir.as_bytes()) {
        return Ok(());
    }
    fs::write(path, manifest_dir.as_bytes())
}

/// The compiler's own copy of `library`, a file that cargo names, if another package than the
/// one of `manifest` made it.
pub(crate) fn made_by_another(library: &Path, manifest: &Path) -> Option<PathBuf> {
    let original = library.parent()?.join(OUT_DIR).join(library.file_name()?);
    // Nobody has said anything: the compiler wrote elsewhere, where names do not collide.
    let owner = fs::read(note(&original)).ok()?;
    (owner != manifest.parent()?.as_os_str().as_bytes()).then_some(original)
}

fn note(library: &Path) -> PathBuf {
    let mut name = OsString::from(library);
    name.push(".package");
    name.into()
}
