//! Which cargo runs, where, and with what environment.
//!
//! Invariant: every child runs in the root of the workspace that it works on, so that this
//! workspace's `.cargo/config.toml` and `rust-toolchain.toml` apply, and inherits nothing from the
//! `cargo run` that may have started the driver.
//!
//! Absent on purpose: any setting of flags. See [`rustc`](crate::rustc) for why.

pub(crate) mod config;

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};
use xshell::{Shell, cmd};

use self::config::Config;

/// How cargo may find dependencies.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Resolution {
    /// Fail if Cargo.lock would have to change
    #[arg(long)]
    locked: bool,
    /// Run without network access
    #[arg(long)]
    offline: bool,
    /// Both `--locked` and `--offline`
    #[arg(long)]
    frozen: bool,
}

impl Resolution {
    /// As cargo spells it.
    pub(crate) fn options(self) -> impl Iterator<Item = &'static str> {
        [
            (self.locked, "--locked"),
            (self.offline, "--offline"),
            (self.frozen, "--frozen"),
        ]
        .into_iter()
        .filter_map(|(given, option)| given.then_some(option))
    }
}

/// Cargo, ready to work on one workspace.
#[derive(Debug)]
pub(crate) struct Cargo {
    program: OsString,
    root: PathBuf,
    /// Whether the workspace selects its own toolchain.
    own_toolchain: bool,
}

/// The compiler that cargo will use.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// The triple that it runs on, and builds for by default.
    pub host: String,
    /// Its full version output.
    pub identity: String,
}

impl Cargo {
    /// Finds the workspace of `manifest`, or that of the working directory.
    pub(crate) fn locate(manifest: Option<&Path>) -> Result<Self> {
        let program = program();
        let here = env::current_dir().context("failed to find the working directory")?;
        let root = workspace_root(&program, &here, manifest)?;
        let own_toolchain = !here.starts_with(&root) && asks_for_toolchain(&root);
        Ok(Self {
            // Rustup's cargo in the search path looks at the workspace; the one that runs the
            // driver has been chosen already.
            program: if own_toolchain {
                "cargo".into()
            } else {
                program
            },
            root,
            own_toolchain,
        })
    }

    /// The root of the workspace.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo with nothing on its command line yet.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.root);
        for name in self.foreign_variables() {
            command.env_remove(name);
        }
        command.envs(absolute_paths());
        command
    }

    /// Asks for the workspace and its members. Dependencies are left out:
    /// resolving them takes cargo longer than the rest of a run with nothing to do.
    pub(crate) fn workspace(&self) -> Result<Metadata> {
        let output = self
            .command()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("failed to run `{}`", self.program.display()))?;
        if !output.status.success() {
            bail!("`cargo metadata` failed in `{}`", self.root.display());
        }
        let text =
            str::from_utf8(&output.stdout).context("`cargo metadata` did not write UTF-8")?;
        MetadataCommand::parse(text).context("failed to parse the output of `cargo metadata`")
    }

    /// Queries the compiler's version.
    pub(crate) fn compiler(&self, settings: &Settings) -> Result<Compiler> {
        let shell = Shell::new()?;
        shell.change_dir(&self.root);
        let rustc = &settings.rustc;
        let mut question = cmd!(shell, "{rustc} -vV").envs(absolute_paths()).quiet();
        for name in self.foreign_variables() {
            question = question.env_remove(name);
        }
        let identity = question
            .read()
            .context("failed to query the compiler's version")?;
        let host = identity
            .lines()
            .find_map(|line| line.strip_prefix("host: "));
        Ok(Compiler {
            host: host
                .context("the compiler does not report its host triple")?
                .to_owned(),
            identity,
        })
    }

    fn foreign_variables(&self) -> Vec<OsString> {
        let toolchain = self.own_toolchain.then(|| "RUSTUP_TOOLCHAIN".into());
        of_cargo_run().chain(toolchain).collect()
    }
}

/// The parts of cargo's configuration that the driver needs.
#[derive(Debug)]
pub(crate) struct Settings {
    rustc: PathBuf,
    /// The wrapper around the compiler that the user has set; empty for none.
    pub wrapper: OsString,
    /// Whether a file sets `build.build-dir`, which moves intermediate files.
    pub moves_builds: bool,
}

impl Settings {
    /// Reads the configuration for the workspace at `root`.
    pub(crate) fn read(root: &Path) -> Self {
        let config = Config::of(root);
        Self {
            rustc: config
                .program("rustc")
                .map_or_else(|| "rustc".into(), PathBuf::from),
            wrapper: config.program("rustc-wrapper").unwrap_or_default(),
            moves_builds: config.has("build-dir"),
        }
    }
}

/// The cargo that runs the driver, or the one in the search path.
pub(crate) fn program() -> OsString {
    let named = env::var_os("CARGO").filter(|program| !program.is_empty());
    named.map_or_else(|| "cargo".into(), config::absolute)
}

/// A target as the user gives it; the path of a target file is relative to the user's directory.
pub(crate) fn from_here(target: String) -> String {
    let absolute = config::absolute(target.clone().into());
    absolute.into_string().unwrap_or(target)
}

/// The root of the workspace or package that `directory` lies in; `None` outside of any.
pub(crate) fn root_around(directory: &Path) -> Option<PathBuf> {
    let shell = Shell::new().ok()?;
    shell.change_dir(directory);
    let cargo = program();
    let question = cmd!(
        shell,
        "{cargo} locate-project --workspace --message-format plain"
    );
    let question = question.envs(absolute_paths()).quiet();
    let manifest = question.ignore_stderr().read().ok()?;
    Some(Path::new(&manifest).parent()?.to_owned())
}

fn workspace_root(cargo: &OsStr, here: &Path, manifest: Option<&Path>) -> Result<PathBuf> {
    let nearest = manifest.map_or_else(|| here.join("Cargo.toml"), |path| here.join(path));
    if is_root(&nearest) {
        return Ok(nearest.parent().unwrap_or(here).canonicalize()?);
    }
    let shell = Shell::new()?;
    let manifest = manifest.map(|path| [OsStr::new("--manifest-path"), path.as_os_str()]);
    let manifest = manifest.iter().flatten();
    let question = cmd!(
        shell,
        "{cargo} locate-project --workspace --message-format plain {manifest...}"
    );
    let root_manifest = question
        .quiet()
        .read()
        .context("failed to find the workspace")?;
    let root = Path::new(&root_manifest).parent();
    Ok(root.context("the workspace has no directory")?.to_owned())
}

/// A manifest with a table `workspace` is a root by itself; to ask cargo costs 25 ms.
fn is_root(manifest: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(manifest) else {
        return false;
    };
    let manifest = text.parse::<toml_edit::DocumentMut>();
    manifest.is_ok_and(|manifest| manifest.contains_key("workspace"))
}

/// Whether rustup would choose a toolchain by a file in `root` or above.
fn asks_for_toolchain(root: &Path) -> bool {
    root.ancestors().any(|dir| {
        ["rust-toolchain.toml", "rust-toolchain"]
            .iter()
            .any(|name| dir.join(name).is_file())
    })
}

/// Variables that `cargo run` sets for the program it runs. A child would mistake them for
/// its own.
fn of_cargo_run() -> impl Iterator<Item = OsString> {
    env::vars_os().map(|(name, _)| name).filter(|name| {
        name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || name.starts_with("CARGO_BIN_")
                || matches!(
                    name,
                    "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR"
                )
        })
    })
}

/// The user's relative paths and programs are relative to the user's working directory, not to
/// that of a child.
pub(crate) fn absolute_paths() -> impl Iterator<Item = (OsString, OsString)> {
    env::vars_os().filter_map(|(name, value)| {
        let absolute = match kind_of(name.to_str()?)? {
            _ if value.is_empty() => return None,
            Kind::Path => std::path::absolute(&value).ok()?.into(),
            Kind::Program => config::absolute(value),
        };
        Some((name, absolute))
    })
}

enum Kind {
    /// Always a path, even without a slash.
    Path,
    /// Without a slash it is a name to search in `PATH`; a target without a slash is a triple.
    Program,
}

/// What cargo resolves against its working directory.
fn kind_of(variable: &str) -> Option<Kind> {
    match variable {
        "CARGO_HOME"
        | "RUSTUP_HOME"
        | "CARGO_TARGET_DIR"
        | "CARGO_BUILD_TARGET_DIR"
        | "CARGO_BUILD_DEP_INFO_BASEDIR"
        | "CARGO_HTTP_CAINFO"
        | "CARGO_HTTP_PROXY_CAINFO"
        | "SSL_CERT_FILE"
        | "SSL_CERT_DIR" => Some(Kind::Path),
        "CARGO_BUILD_TARGET" => Some(Kind::Program),
        _ => {
            let tool = variable.strip_prefix("CARGO_BUILD_").unwrap_or(variable);
            let is_tool = [
                "RUSTC",
                "RUSTC_WRAPPER",
                "RUSTC_WORKSPACE_WRAPPER",
                "RUSTDOC",
            ]
            .contains(&tool);
            let is_linker = variable.starts_with("CARGO_TARGET_") && variable.ends_with("_LINKER");
            (is_tool || is_linker).then_some(Kind::Program)
        }
    }
}
