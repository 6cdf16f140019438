//! The source of a package, which distinguishes packages of one name and version.
//!
//! Cargo writes Cargo.lock before it starts the first compiler, so a compiler always finds the
//! lock file of its own run. A package's identity depends on its own source alone, never on
//! other packages: crates built before another package was added would keep their old metadata.
//! Path dependencies need no name of their own: cargo resolves at most one per name and version.
//!
//! Absent on purpose: the directory of a package. The same sources may lie anywhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hotmerge_meta::Digest;
use serde::Deserialize;

/// The source of most packages; it is left out of their identity.
const USUAL: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

/// The source of the package in `directory`, as a part of its identity; empty for packages of
/// crates.io, vendored or not.
pub(crate) fn of(name: &str, version: &str, directory: &Path, lock: &Path) -> String {
    let text = fs::read_to_string(lock).unwrap_or_default();
    let lock: Lock = toml::from_str(&text).unwrap_or(Lock {
        package: Vec::new(),
    });
    let mut named = lock.package;
    named.retain(|package| package.name == name && package.version == version);
    let found = match named.as_slice() {
        [only] => Some(only),
        several => several.iter().find(|package| package.lies_in(directory)),
    };
    match found.and_then(|package| package.source.as_deref()) {
        Some(USUAL) => String::new(),
        Some(source) => format!("/{source}"),
        None => "/path".to_owned(),
    }
}

impl Locked {
    /// Whether cargo has put this package, and no other, into the directory. Unknown, and so
    /// false, for path dependencies.
    fn lies_in(&self, directory: &Path) -> bool {
        let Some(source) = &self.source else {
            return false;
        };
        if let Some(checksum) = &self.checksum {
            return vendored(directory).or_else(|| unpacked(directory)).as_ref() == Some(checksum);
        }
        let revision = source.rsplit_once('#').map_or("", |(_, revision)| revision);
        let is_revision = |part: &str| part.len() >= 7 && revision.starts_with(part);
        directory
            .iter()
            .filter_map(|part| part.to_str())
            .any(is_revision)
    }
}

/// The checksum of a package that `cargo vendor` has copied.
fn vendored(directory: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Checksums {
        package: Option<String>,
    }
    let text = fs::read(directory.join(".cargo-checksum.json")).ok()?;
    serde_json::from_slice::<Checksums>(&text).ok()?.package
}

/// The checksum of the archive that cargo has unpacked into `registry/src/NAME/PACKAGE`.
fn unpacked(directory: &Path) -> Option<String> {
    let (package, registry) = (directory.file_name()?, directory.parent()?);
    let sources = registry.parent()?;
    let mut archive: PathBuf = sources.with_file_name("cache").join(registry.file_name()?);
    archive.push(package);
    archive.as_mut_os_string().push(".crate");
    let digest = Digest::of(&fs::read(archive).ok()?).to_string();
    Some(digest.trim_start_matches("sha256:").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_does_not_depend_on_others() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("Cargo.lock");
        let registry = dir.path().join("registry/src/index-1/itoa-1.0.0");
        fs::create_dir_all(dir.path().join("registry/cache/index-1")).unwrap();
        fs::write(
            dir.path().join("registry/cache/index-1/itoa-1.0.0.crate"),
            "archive",
        )
        .unwrap();
        let checksum = Digest::of(b"archive").to_string();
        let head = "[[package]]\nname = \"itoa\"\nversion = \"1.0.0\"\n";
        let usual = format!(
            "{head}source = \"{USUAL}\"\nchecksum = \"{}\"\n",
            checksum.trim_start_matches("sha256:")
        );
        let git = format!("{head}source = \"git+https://x/itoa#0123456789abcdef\"\n");
        let checkout = dir.path().join("git/checkouts/itoa-1/0123456");
        let elsewhere = dir.path().join("itoa");
        for (locked, from, expected) in [
            (vec![&usual], &registry, ""),
            (
                vec![&git],
                &checkout,
                "/git+https://x/itoa#0123456789abcdef",
            ),
            (vec![&head.to_owned()], &elsewhere, "/path"),
            (vec![&git, &head.to_owned(), &usual], &registry, ""),
            (
                vec![&usual, &head.to_owned(), &git],
                &checkout,
                "/git+https://x/itoa#0123456789abcdef",
            ),
            (vec![&usual, &git, &head.to_owned()], &elsewhere, "/path"),
        ] {
            let text: String = locked.into_iter().map(String::as_str).collect();
            fs::write(&lock, text).unwrap();
            assert_eq!(of("itoa", "1.0.0", from, &lock), expected);
        }
    }
}
