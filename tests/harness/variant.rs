//! Plugins made from a built fixture by changing its bytes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock},
};

use hotmerge_abi::{MAGIC, TableHeader};
use hotmerge_meta::{Abi, Digest, Image, OnReplace, PluginMeta, Requires, Wants};

use crate::{BUILT, Driver, process::run, programs, repository, scratch};

const SCRIPT: &[u8] = b"hotmerge-test-script: ";
const SCRIPT_BYTES: usize = 128;

/// A plugin file and its entry in a `plugin.meta`.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The file.
    pub bytes: Vec<u8>,
    /// The correct entry, unless a test needs a wrong one.
    pub meta: PluginMeta,
}

/// The fixture `actor` with a script; see its source for the words.
///
/// # Panics
/// If the script is too long.
pub fn actor(script: &str) -> Variant {
    static ACTOR: LazyLock<Arc<[u8]>> = LazyLock::new(driven_actor);
    Variant::new("actor", with_script(&ACTOR, script))
}

/// The fixture `actor` with a script, and with the names of its functions.
///
/// # Panics
/// If the script is too long.
pub fn named_actor(script: &str) -> Variant {
    static NAMED: LazyLock<Arc<[u8]>> =
        LazyLock::new(|| built_apart("actor", "named", ("CARGO_PROFILE_RELEASE_STRIP", "none")));
    Variant::new("actor", with_script(&NAMED, script))
}

/// The fixture `attacks`, which does what its method's name says; see its source.
pub fn attacks() -> Variant {
    attacks_at("")
}

/// The fixture `attacks` with a script that says what it does when; see its source.
///
/// # Panics
/// If the script is too long.
pub fn attacks_at(script: &str) -> Variant {
    static ATTACKS: LazyLock<Arc<[u8]>> = LazyLock::new(|| built("attacks"));
    Variant::new("attacks", with_script(&ATTACKS, script))
}

/// The fixture `small`, built so that a panic ends its process.
pub fn abrupt() -> Variant {
    static ABRUPT: LazyLock<Arc<[u8]>> =
        LazyLock::new(|| built_apart("small", "abrupt", ("CARGO_PROFILE_RELEASE_PANIC", "abort")));
    Variant::new("small", ABRUPT.to_vec())
}

/// A plugin that reads, writes and connects as it is asked; see its source.
pub fn reader() -> Variant {
    static READER: LazyLock<Arc<[u8]>> = LazyLock::new(|| built("reader"));
    Variant::new("reader", READER.to_vec())
}

/// A shared object that is not a plugin.
pub fn plain() -> Variant {
    static PLAIN: LazyLock<Arc<[u8]>> = LazyLock::new(|| built("plain"));
    Variant::new("plain", PLAIN.to_vec())
}

/// An honest plugin by the name of its directory; see its source.
///
/// # Panics
/// If there is none of the name.
pub fn honest(name: &str) -> Variant {
    static RELEASE: LazyLock<PathBuf> = LazyLock::new(|| {
        let build_dir = scratch().join("build");
        let _lock = lock(&build_dir);
        let mut cargo = Command::new(programs::cargo());
        cargo
            .args(["build", "--release", "--locked", "--workspace"])
            .arg("--manifest-path")
            .arg(repository().join("tests/fixtures/honest/Cargo.toml"))
            .arg("--target-dir")
            .arg(&build_dir)
            .env_remove("CARGO_BUILD_TARGET");
        run(&mut cargo, BUILT).ok();
        build_dir.join("release")
    });
    let file = RELEASE.join(format!("libhonest_{name}.so"));
    Variant::new(name, read(&file).to_vec())
}

/// A built fixture with its script replaced.
fn with_script(bytes: &[u8], script: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = find(&bytes, SCRIPT) + SCRIPT.len();
    let place = &mut bytes[at..at + SCRIPT_BYTES - SCRIPT.len()];
    assert!(script.len() <= place.len(), "the script is too long");
    place.fill(b' ');
    place[..script.len()].copy_from_slice(script.as_bytes());
    bytes
}

impl Variant {
    /// A plugin of this name and these bytes.
    ///
    /// # Panics
    /// If the name is none.
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        let mut variant = Self {
            bytes,
            meta: PluginMeta {
                name: name.parse().expect("tests use good names"),
                version: "1.0.0".parse().expect("it is a version"),
                file: format!("lib{name}.so").parse().expect("it is a file name"),
                hash: Digest::of(b""),
                size: 0,
                abi: Abi::CURRENT,
                target: hotmerge_daemon::TARGET.to_owned(),
                handover: Default::default(),
                requires: Vec::new(),
                wants: Wants::default(),
            },
        };
        variant.tell_the_truth();
        variant
    }

    /// The same file as another plugin.
    ///
    /// # Panics
    /// If the name is none.
    pub fn named(mut self, name: &str) -> Self {
        self.meta.name = name.parse().expect("tests use good names");
        self.meta.file = format!("lib{name}.so").parse().expect("it is a file name");
        self
    }

    /// The same code as another version.
    ///
    /// # Panics
    /// If it is not a version.
    pub fn version(mut self, version: &str) -> Self {
        self.meta.version = version.parse().expect("it is a version");
        self
    }

    /// The same, and it requires another plugin.
    ///
    /// # Panics
    /// If that is not a name, or not a version requirement.
    pub fn requiring(self, name: &str, version: &str, on_replace: OnReplace) -> Self {
        self.with_meta(|meta| {
            meta.requires.push(Requires {
                name: name.parse().expect("tests use good names"),
                version: version.parse().expect("it is a requirement"),
                on_replace,
            });
        })
    }

    /// Changes the file, and updates the meta.
    pub fn with_bytes(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(&mut self.bytes);
        self.tell_the_truth();
        self
    }

    /// Changes the meta, but not the file.
    pub fn with_meta(mut self, change: impl FnOnce(&mut PluginMeta)) -> Self {
        change(&mut self.meta);
        self
    }

    /// The same file with another version of the contract in its table.
    pub fn with_abi(self, major: u16, minor: u16) -> Self {
        self.with_bytes(|bytes| {
            let header = [&MAGIC[..], &Abi::CURRENT.major.to_ne_bytes()].concat();
            let at = find(bytes, &header) + MAGIC.len();
            bytes[at..at + 2].copy_from_slice(&major.to_ne_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&minor.to_ne_bytes());
            let size = TableHeader::table_bytes(minor);
            bytes[at + 4..at + 8].copy_from_slice(&size.to_ne_bytes());
        })
    }

    fn tell_the_truth(&mut self) {
        // A file that is not an image keeps its previous record.
        if let Ok(image) = Image::normalise(self.bytes.clone()) {
            self.meta.hash = image.digest();
            self.meta.size = image.len() as u64;
            if let Ok(header) = image.header() {
                self.meta.abi = Abi::from(&header);
            }
        }
    }
}

/// Where `wanted` is; there must be one.
fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    let mut places = bytes
        .windows(wanted.len())
        .enumerate()
        .filter_map(|(at, window)| (window == wanted).then_some(at));
    let at = places.next().expect("it is in the fixture");
    assert_eq!(places.next(), None, "it is in the fixture twice");
    at
}

/// By the driver, as authors do it.
fn driven_actor() -> Arc<[u8]> {
    let build_dir = scratch().join("build");
    let _lock = lock(&build_dir);
    let staging = scratch().join("staging");
    Driver::new(&manifest(), &staging, &build_dir)
        .arguments(["--notify", "never", "--plugin", "actor"])
        .run()
        .ok();
    read(&staging.join("actor/libactor.so"))
}

/// Without the driver, which knows only plugins, and only good ones.
fn built(name: &str) -> Arc<[u8]> {
    let build_dir = scratch().join("build");
    let _lock = lock(&build_dir);
    build(name, &build_dir, &[])
}

/// As [`built`], but in a separate directory.
fn built_apart(name: &str, dir: &str, variable: (&str, &str)) -> Arc<[u8]> {
    let build_dir = scratch().join("build");
    let _lock = lock(&build_dir);
    build(name, &build_dir.join(dir), &[variable])
}

fn build(name: &str, build_dir: &Path, variables: &[(&str, &str)]) -> Arc<[u8]> {
    let mut cargo = Command::new(programs::cargo());
    cargo
        .args([
            "build",
            "--release",
            "--offline",
            "--package",
            &format!("fixture-{name}"),
        ])
        .arg("--manifest-path")
        .arg(manifest())
        .arg("--target-dir")
        .arg(build_dir)
        .env_remove("CARGO_BUILD_TARGET")
        .envs(variables.iter().copied());
    run(&mut cargo, BUILT).ok();
    read(&build_dir.join(format!("release/lib{name}.so")))
}

fn manifest() -> PathBuf {
    repository().join("tests/fixtures/Cargo.toml")
}

fn read(path: &Path) -> Arc<[u8]> {
    let bytes = fs::read(path);
    let bytes =
        bytes.unwrap_or_else(|error| panic!("failed to read `{}`: {error}", path.display()));
    bytes.into()
}

/// Keeps other test runs out of a directory until the file is dropped.
///
/// # Panics
/// If the directory cannot be written, or its file system has no locks.
pub fn lock(dir: &Path) -> File {
    fs::create_dir_all(dir).expect("the target directory can be written");
    let lock = File::create(dir.join(".lock")).expect("the target directory can be written");
    lock.lock().expect("the file system has locks");
    lock
}
