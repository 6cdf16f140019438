//! Plugins in other languages than Rust: their declarations, and the commands that build them.
//!
//! `[workspace.metadata.hotmerge]` lists directories under `foreign`; in each a `hotmerge.toml` says what a
//! crate's table says, and which command makes the file. The driver runs the command each time, because
//! only the author's own build tool knows what the file depends on.
//!
//! Invariant: whatever made the file, it is staged as every other plugin.
//!
//! Absent on purpose: compilers and their options.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Metadata;
use hotmerge_meta::{
    PackageName, PluginName,
    image::C_HEADER,
    package::{Handover, Requires, Wants},
};
use semver::Version;
use serde::Deserialize;

use super::{
    compile::{Builder, Built},
    discover::{Plugin, package_of},
};
use crate::exit::{self, CommandError};

/// The file that declares a plugin.
const DECLARATION: &str = "hotmerge.toml";

/// Where the command puts the plugin, for the command.
const FILE: &str = "HOTMERGE_FILE";
/// Directory of the contract's header, `hotmerge/plugin.h`.
const INCLUDE: &str = "HOTMERGE_INCLUDE";
/// The target's triple.
const TARGET: &str = "HOTMERGE_TARGET";
/// Cargo's profile that was asked for.
const PROFILE: &str = "HOTMERGE_PROFILE";

/// A plugin that a command builds.
#[derive(Clone, Debug)]
pub(crate) struct Foreign {
    name: PluginName,
    /// Where the command runs.
    directory: PathBuf,
    program: String,
    arguments: Vec<String>,
}

impl Foreign {
    /// The name of the file that the command makes.
    pub(super) fn file(&self) -> String {
        format!("lib{}.so", self.name.as_str().replace('-', "_"))
    }
}

/// The workspace's list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Listed {
    foreign: Vec<PathBuf>,
}

/// The declaration as an author writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    name: PluginName,
    version: Version,
    command: Vec<String>,
    package: Option<PackageName>,
    #[serde(default)]
    handover: Handover,
    #[serde(default)]
    requires: Vec<Requires>,
    #[serde(default)]
    wants: Wants,
}

/// The workspace's plugins in other languages.
pub(super) fn plugins(workspace: &Metadata) -> Result<Vec<(Plugin, Foreign)>> {
    let Some(table) = workspace.workspace_metadata.get("hotmerge") else {
        return Ok(Vec::new());
    };
    let root = workspace.workspace_root.as_std_path();
    let listed = Listed::deserialize(table).with_context(|| {
        let manifest = root.join("Cargo.toml");
        format!(
            "`{}`: [workspace.metadata.hotmerge] is invalid",
            manifest.display()
        )
    })?;
    let directories = listed.foreign.iter();
    directories
        .map(|directory| plugin(root.join(directory)))
        .collect()
}

fn plugin(directory: PathBuf) -> Result<(Plugin, Foreign)> {
    let manifest = directory.join(DECLARATION);
    let doing = || format!("failed to read `{}`", manifest.display());
    let text = fs::read_to_string(&manifest).with_context(doing)?;
    let declared: Declaration = toml::from_str(&text).with_context(doing)?;
    let mut words = declared.command.into_iter();
    let program = words
        .next()
        .with_context(|| format!("`{}`: `command` is empty", manifest.display()))?;
    let foreign = Foreign {
        name: declared.name.clone(),
        directory,
        program,
        arguments: words.collect(),
    };
    let plugin = Plugin {
        package: package_of(declared.package, &declared.name)?,
        name: declared.name,
        version: declared.version,
        handover: declared.handover,
        requires: declared.requires,
        wants: declared.wants,
        manifest,
    };
    Ok((plugin, foreign))
}

/// Runs the commands.
pub(super) struct Workshop<'a> {
    builder: &'a Builder<'a>,
    /// Has the contract's header, and a directory for what is built.
    directory: PathBuf,
}

impl<'a> Workshop<'a> {
    pub(super) fn new(builder: &'a Builder<'a>) -> Self {
        Self {
            builder,
            directory: builder.directory.join("foreign"),
        }
    }

    /// Builds one.
    pub(super) fn build(&self, plugin: &Plugin, foreign: &Foreign) -> Result<Built> {
        let options = self.builder.options;
        let out = self
            .directory
            .join(place_of(options.target.as_deref()))
            .join(&options.profile);
        let file = out.join(foreign.file());
        fs::create_dir_all(&out)
            .with_context(|| format!("failed to create `{}`", out.display()))?;
        self.builder
            .progress
            .say(format!("building {}", plugin.name));
        let before = written(&file);
        let started = Instant::now();
        self.run(foreign, &file)?;
        let after = written(&file);
        if after.is_none() {
            bail!(
                "`{}` ended well, but made no `{}`; the command in `{}` must write the file that {FILE} \
                 names; nothing was staged",
                foreign.program,
                file.display(),
                plugin.manifest.display(),
            );
        }
        Ok(Built {
            file,
            target: options.target.clone(),
            took: if before == after {
                Duration::ZERO
            } else {
                started.elapsed()
            },
        })
    }

    fn run(&self, foreign: &Foreign, file: &Path) -> Result<()> {
        let options = self.builder.options;
        let target = options
            .target
            .as_ref()
            .unwrap_or(&self.builder.compiler.host);
        let doing = || format!("failed to run `{}` for `{}`", foreign.program, foreign.name);
        // Its output must not mix with the driver's, which programs read.
        let (reader, writer) = io::pipe().with_context(doing)?;
        let mut command = Command::new(&foreign.program);
        command
            .args(&foreign.arguments)
            .current_dir(&foreign.directory)
            .env(FILE, file)
            .env(INCLUDE, self.header()?)
            .env(TARGET, target)
            .env(PROFILE, &options.profile)
            .stdin(Stdio::null())
            .stdout(writer.try_clone().with_context(doing)?)
            .stderr(writer);
        let mut child = command.spawn().with_context(doing)?;
        // It holds the pipe open.
        drop(command);
        self.builder.progress.forward(reader).with_context(doing)?;
        let status = child.wait().with_context(doing)?;
        if !status.success() {
            return Err(CommandError::new(
                exit::BUILD,
                format!(
                    "`{}` failed to build `{}` ({status}); nothing was staged",
                    foreign.program, foreign.name
                ),
            )
            .into());
        }
        Ok(())
    }

    /// The directory of the header, which is that of this driver's contract.
    fn header(&self) -> Result<PathBuf> {
        let include = self.directory.join("include");
        let header = include.join("hotmerge/plugin.h");
        let doing = || format!("failed to write `{}`", header.display());
        // A new time would have everything built anew.
        if !fs::read_to_string(&header).is_ok_and(|old| old == C_HEADER) {
            fs::create_dir_all(include.join("hotmerge")).with_context(doing)?;
            fs::write(&header, C_HEADER).with_context(doing)?;
        }
        Ok(include)
    }
}

/// Where plugins of a target are built, by a name that no path to a description of the target decides.
fn place_of(target: Option<&str>) -> &OsStr {
    let name = target.and_then(|target| Path::new(target).file_stem());
    name.unwrap_or_else(|| OsStr::new("host"))
}

/// When a file was written; `None` if there is none.
fn written(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|it| it.modified()).ok()
}
