//! Plugins that another plugin links as a library.
//!
//! Both export the plugin's table under one name. Which of the two a build keeps depends on the
//! profile, the number of codegen units and the linker, if it builds at all: so it is refused,
//! also where it would have gone well.

use std::{fs, path::Path};

use cargo_metadata::Artifact;
use hotmerge_meta::image::ENTRY_SYMBOL;
use object::read::archive::ArchiveFile;

/// Whether a library that cargo built exports a plugin to whoever links it.
pub(super) fn exports_a_plugin(artifact: &Artifact) -> bool {
    let mut files = artifact.filenames.iter();
    files.any(|file| file.extension() == Some("rlib") && defines_entry(file.as_std_path()))
}

/// What cannot be read is the linker's to complain of.
fn defines_entry(archive: &Path) -> bool {
    let Ok(bytes) = fs::read(archive) else {
        return false;
    };
    let Ok(Some(symbols)) =
        ArchiveFile::parse(bytes.as_slice()).and_then(|archive| archive.symbols())
    else {
        return false;
    };
    symbols
        .flatten()
        .any(|symbol| symbol.name() == ENTRY_SYMBOL.as_bytes())
}
