//! Which package a library that cargo built comes from.
//!
//! Cargo names the library of a path dependency after its target alone, and takes any file of
//! that name for its own. If two packages have the same target name, the file belongs to the
//! one built last, even after that one has left the workspace. So the driver, as the compiler
//! wrapper, writes the package's directory beside the library, and later compares it with what
//! cargo reports.
//!
//! Absent on purpose: what follows from a difference.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// Where cargo lets the compiler write, next to the files that it reports.
const OUT_DIR: &str = "deps";

/// Records that the library which the compiler is about to write belongs to the package in
/// `manifest_dir`. Recorded first: after an interrupted build the library is built again.
pub(crate) fn claim(out_dir: &OsStr, crate_name: &str, manifest_dir: &OsStr) -> io::Result<()> {
    let path = note(&Path::new(out_dir).join(format!("lib{crate_name}.so")));
    if fs::read(&path).is_ok_and(|old| old == manifest_dir.as_bytes()) {
        return Ok(());
    }
    fs::write(path, manifest_dir.as_bytes())
}

/// The compiler's own copy of `library`, a file that cargo reports, if a package other than that
/// of `manifest` built it.
pub(crate) fn made_by_another(library: &Path, manifest: &Path) -> Option<PathBuf> {
    let original = library.parent()?.join(OUT_DIR).join(library.file_name()?);
    // Without a record the compiler wrote elsewhere, where names do not collide.
    let owner = fs::read(note(&original)).ok()?;
    (owner != manifest.parent()?.as_os_str().as_bytes()).then_some(original)
}

fn note(library: &Path) -> PathBuf {
    let mut name = OsString::from(library);
    name.push(".package");
    name.into()
}
