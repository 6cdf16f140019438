//! `new-plugin`: creates a plugin crate that builds, loads and answers calls.
//!
//! Invariant: either the whole crate exists and is a member of the workspace, or nothing was
//! written.

mod manifest;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use hotmerge_meta::PluginName;
use semver::VersionReq;
use toml_edit::DocumentMut;

use self::manifest::{Inherited, Sdk};
use crate::{cargo, exit, output};

const SOURCE: &str = include_str!("plugin.rs.template");

/// Create a plugin crate that builds, loads and answers calls
///
/// In a workspace the crate becomes a member. The plugin has one method, `hello`, and tests.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub struct Args {
    /// The plugin's name: a-z, 0-9, `-` and `_`, starting with a letter
    name: String,
    /// Directory of the crate [default: plugins/NAME or NAME in the workspace, otherwise NAME]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Source of hotmerge-sdk, unless the workspace specifies it: a directory, a git URL or
    /// a version
    #[arg(long, value_name = "FROM")]
    sdk: Option<String>,
}

/// Runs the command. `program` is what the user typed to get here.
///
/// # Errors
/// If the name is invalid, the directory exists or the SDK's source is unknown.
pub fn run(args: &Args, program: &str) -> Result<u8> {
    let name = PluginName::new(&args.name)?;
    ask_cargo(&name)?;
    let directory = directory(args)?;
    if fs::symlink_metadata(&directory).is_ok() {
        bail!(
            "`{}` already exists; choose another `--path`",
            directory.display()
        );
    }
    let workspace = Workspace::around(&directory)?;
    let root = workspace.as_ref();
    let inherited = root.map_or_else(Inherited::default, |workspace| {
        Inherited::from(&workspace.manifest)
    });
    if let Some(workspace) = root {
        workspace.check_unused(&name)?;
    }
    let sdk = sdk(args, inherited)?;
    let manifest = manifest::plugin(&name, &sdk, inherited);
    let joined = root
        .map(|workspace| workspace.joined_by(&directory))
        .transpose()?
        .flatten();
    write_crate(&directory, &manifest).inspect_err(|_| {
        // Report the first error.
        let _ = fs::remove_dir_all(&directory);
    })?;
    if let Some((path, text)) = joined {
        fs::write(&path, text)
            .inspect_err(|_| {
                let _ = fs::remove_dir_all(&directory);
            })
            .with_context(|| format!("failed to write `{}`", path.display()))?;
    }
    output::line(format_args!(
        "created `{name}` in `{}`\n\n  \
         cargo test -p {name}\n  \
         {program} build-plugins -p {name}\n  \
         hotmerge call {name} hello",
        directory.display(),
    ));
    Ok(exit::OK)
}

/// Lets cargo reject invalid crate names (keywords, `test`) with its own messages.
fn ask_cargo(name: &PluginName) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut cargo = Command::new(cargo::program());
    cargo
        .current_dir(scratch.path())
        .envs(cargo::absolute_paths())
        .args(["new", "--quiet", "--lib", "--vcs", "none"])
        .args(["--name", name.as_str(), "crate"]);
    let ended = cargo.status().context("failed to run cargo")?;
    match ended.code() {
        Some(0) => Ok(()),
        Some(_) => bail!("`{name}` cannot be the name of a crate"),
        None => bail!("cargo, which judges the name `{name}`, was killed ({ended})"),
    }
}

fn directory(args: &Args) -> Result<PathBuf> {
    let here = std::env::current_dir().context("failed to find the working directory")?;
    if let Some(path) = &args.path {
        return Ok(std::path::absolute(path)?);
    }
    let parent = match Workspace::around(&here)? {
        Some(workspace) if workspace.root.join("plugins").is_dir() => {
            workspace.root.join("plugins")
        }
        Some(workspace) => workspace.root,
        None => here,
    };
    Ok(parent.join(&args.name))
}

fn sdk(args: &Args, inherited: Inherited<'_>) -> Result<Sdk> {
    let Some(from) = &args.sdk else {
        if inherited.has_sdk() {
            return Ok(Sdk::Workspace);
        }
        bail!(
            "the source of `hotmerge-sdk` is unknown; pass `--sdk` with a directory, a git URL or a version"
        );
    };
    let (key, place) = if from.contains("://") {
        ("git", from.clone())
    } else if Path::new(from).join("Cargo.toml").is_file() {
        let directory = fs::canonicalize(from)?;
        let directory = directory
            .to_str()
            .context("the path of the SDK is not UTF-8")?;
        ("path", directory.to_owned())
    } else if VersionReq::parse(from).is_ok() {
        ("version", from.clone())
    } else {
        bail!("`{from}` is neither a directory with a Cargo.toml, nor a git URL, nor a version");
    };
    Ok(Sdk::From { key, place })
}

fn write_crate(directory: &Path, manifest: &str) -> Result<()> {
    let write = |path: PathBuf, text: &str| {
        fs::write(&path, text).with_context(|| format!("failed to write `{}`", path.display()))
    };
    let sources = directory.join("src");
    fs::create_dir_all(&sources)
        .with_context(|| format!("failed to create `{}`", sources.display()))?;
    write(directory.join("Cargo.toml"), manifest)?;
    write(sources.join("lib.rs"), SOURCE)
}

/// The workspace that contains a directory.
struct Workspace {
    root: PathBuf,
    manifest: DocumentMut,
}

impl Workspace {
    /// `None` if there is none, or only a package without members.
    fn around(directory: &Path) -> Result<Option<Self>> {
        let existing = directory.ancestors().find(|ancestor| ancestor.is_dir());
        let Some(root) = existing.and_then(cargo::root_around) else {
            return Ok(None);
        };
        let path = root.join("Cargo.toml");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("failed to read `{}`", path.display()))?;
        let manifest: DocumentMut = text
            .parse()
            .with_context(|| format!("failed to parse `{}`", path.display()))?;
        let workspace = Self { root, manifest };
        Ok(Inherited::from(&workspace.manifest)
            .is_workspace()
            .then_some(workspace))
    }

    /// Cargo rejects two packages of one name, and the driver two plugins or two libraries of one name.
    fn check_unused(&self, name: &PluginName) -> Result<()> {
        let metadata = cargo_metadata::MetadataCommand::new()
            .cargo_path(cargo::program())
            .manifest_path(self.root.join("Cargo.toml"))
            .no_deps()
            .exec()?;
        // What the compiler makes of a name; cargo keeps one file of each.
        let library = |name: &str| name.replace('-', "_");
        let is_taken = |package: &cargo_metadata::Package| {
            let plugin = package
                .metadata
                .get("hotmerge")
                .and_then(|mark| mark.get("name"));
            let mut libraries = package.targets.iter().filter(|target| target.is_cdylib());
            *package.name == name.as_str()
                || libraries.any(|target| library(&target.name) == library(name.as_str()))
                || plugin.and_then(|plugin| plugin.as_str()) == Some(name.as_str())
        };
        match metadata.packages.iter().find(|package| is_taken(package)) {
            Some(package) => bail!(
                "`{}` already has the name `{name}`, or a library of that name",
                package.manifest_path
            ),
            None => Ok(()),
        }
    }

    /// The root's manifest with the new member; `None` if it need not change.
    fn joined_by(&self, directory: &Path) -> Result<Option<(PathBuf, String)>> {
        let member = directory
            .strip_prefix(&self.root)
            .ok()
            .and_then(Path::to_str)
            .with_context(|| format!("`{}` cannot be written as a member", directory.display()))?;
        let mut manifest = self.manifest.clone();
        let path = self.root.join("Cargo.toml");
        let is_new = manifest::add_member(&mut manifest, member)
            .with_context(|| format!("failed to add a member to `{}`", path.display()))?;
        Ok(is_new.then(|| (path, manifest.to_string())))
    }
}
