//! Plugins that another plugin links as a library.
//!
//! Both export the plugin's table under the same name. Which of the two the linker keeps, or
//! whether the build fails, depends on the profile, the number of codegen units and the linker.
//! So the driver always refuses such a plugin.

use std::{fs, path::Path};

use cargo_metadata::Artifact;
use hotmerge_meta::image::ENTRY_SYMBOL;
use object::read::archive::ArchiveFile;

/// Whether a library that cargo built exports a plugin's table to the crates that link it.
pub(super) fn exports_a_plugin(artifact: &Artifact) -> bool {
    let mut files = artifact.filenames.iter();
    files.any(|file| file.extension() == Some("rlib") && defines_entry(file.as_std_path()))
}

/// False for an unreadable file: the linker reports it.
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
