//! The plugin that is measured, built twice so that one can replace the other.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use hotmerge_daemon::{Config, Host, Watch, config::Isolation};
use hotmerge_meta::{
    Abi, FileName, Handover, Image, Meta, PackageName, PluginMeta, PluginName, Wants, publish,
};
use tempfile::TempDir;

const MANIFEST: &str = include_str!("../plugin/Cargo.toml.in");
const SOURCE: &str = include_str!("../plugin/src/lib.rs");

/// One built variant.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) file: PathBuf,
    pub(crate) image: Image,
    /// What its method `variant` answers.
    pub(crate) answer: &'static [u8],
}

/// Both variants, and where they were built.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) variants: [Variant; 2],
    _dir: TempDir,
}

impl Subject {
    pub(crate) fn build() -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let variants = [
            variant(dir.path(), "1", b"1")?,
            variant(dir.path(), "2", b"2")?,
        ];
        Ok(Self {
            variants,
            _dir: dir,
        })
    }
}

/// Where this workspace is.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn variant(dir: &Path, name: &str, answer: &'static [u8]) -> anyhow::Result<Variant> {
    let source = dir.join("source");
    write_crate(&source, name)?;
    let target = dir.join(format!("target-{name}"));
    let status = Command::new(cargo())
        .args(["build", "--release", "--quiet", "--lib", "--target-dir"])
        .arg(&target)
        .current_dir(&source)
        .status()
        .context("failed to run cargo")?;
    anyhow::ensure!(status.success(), "the plugin to measure does not build");
    let file = target.join("release/libsubject.so");
    let image = Image::normalise(fs::read(&file)?)?;
    Ok(Variant {
        file,
        image,
        answer,
    })
}

/// Writes the plugin's crate with one constant edited.
pub(crate) fn write_crate(dir: &Path, variant: &str) -> anyhow::Result<()> {
    let sdk = workspace().join("plugins/sdk").canonicalize()?;
    fs::create_dir_all(dir.join("src"))?;
    fs::write(
        dir.join("Cargo.toml"),
        MANIFEST.replace("@SDK@", &sdk.to_string_lossy()),
    )?;
    fs::write(
        dir.join("src/lib.rs"),
        SOURCE.replace("b\"1\"", &format!("b\"{variant}\"")),
    )?;
    Ok(())
}

/// A host on a plugin directory, with everything loaded, that only scans on request.
/// Plugins live in its own process.
pub(crate) fn host(plugin_dir: &Path) -> anyhow::Result<Host> {
    host_with(plugin_dir, |_| ())
}

/// As [`host`], with further configuration.
pub(crate) fn host_with(
    plugin_dir: &Path,
    configure: impl FnOnce(&mut Config),
) -> anyhow::Result<Host> {
    let mut config = Config::default();
    config.plugin_dir = Some(plugin_dir.to_owned());
    config.watch = Watch::Off;
    config.isolation = Some(Isolation::Host);
    configure(&mut config);
    let host = Host::start(config)?;
    host.settle();
    Ok(host)
}

/// Builds a program of this workspace, which comes to lie beside this one.
pub(crate) fn program(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let status = Command::new(cargo())
        .args(["build", "--quiet", "--release", "--package", package])
        .current_dir(workspace())
        .status()
        .context("failed to run cargo")?;
    anyhow::ensure!(status.success(), "`{package}` does not build");
    let own = env::current_exe()?;
    let dir = own.parent().context("a program is in a directory")?;
    Ok(dir.join(name))
}

/// Builds an example of this workspace.
pub(crate) fn example(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let status = Command::new(cargo())
        .args(["build", "--quiet", "--release", "--package", package])
        .args(["--example", name])
        .current_dir(workspace())
        .status()
        .context("failed to run cargo")?;
    anyhow::ensure!(status.success(), "`{name}` of `{package}` does not build");
    let own = env::current_exe()?;
    let dir = own.parent().context("a program is in a directory")?;
    Ok(dir.join("examples").join(name))
}

pub(crate) fn cargo() -> std::ffi::OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Publishes a variant as the plugin of a package of the same name, as the driver does.
pub(crate) fn stage(plugin_dir: &Path, name: &str, variant: &Variant) -> anyhow::Result<()> {
    let file: FileName = "libsubject.so".parse()?;
    let plugin: PluginName = name.parse()?;
    let header = variant.image.header()?;
    let meta = Meta::new(vec![PluginMeta {
        name: plugin,
        version: semver::Version::new(0, 1, 0),
        file: file.clone(),
        hash: variant.image.digest(),
        size: variant.image.len() as u64,
        abi: Abi::from(&header),
        target: hotmerge_daemon::TARGET.to_owned(),
        handover: Handover::default(),
        requires: Vec::new(),
        wants: Wants::default(),
    }])?;
    let package: PackageName = name.parse()?;
    publish(
        plugin_dir,
        &package,
        &meta,
        &[(file, variant.file.as_path())],
    )?;
    Ok(())
}
