//! Builds plugins with cargo: from packages to files.
//!
//! Invariant: a plugin is built exactly as it would be alone, see [`groups`](super::groups), and
//! with the user's flags, see [`rustc`](crate::rustc).
//!
//! Absent on purpose: guessing where cargo puts a file. Cargo reports it.

use std::{
    fs,
    io::BufReader,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use cargo_metadata::{Artifact, Message, TargetKind};

use super::{
    discover::Plugin,
    groups::{Grouping, Units},
    inputs::Inputs,
    progress::Progress,
};
use crate::{
    cargo::{Cargo, Compiler, Resolution},
    exit::{self, CommandError},
    rustc::Wrapper,
};

/// How plugins are built.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub profile: String,
    /// From the command line; cargo's configuration may name another.
    pub target: Option<String>,
    pub resolution: Resolution,
}

/// A plugin's file as cargo built it.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub file: PathBuf,
    /// The target it was built for, if one was requested.
    pub target: Option<String>,
    /// Time from cargo's start to the finished file; zero if it was up to date.
    pub took: Duration,
}

/// Cargo, set up to build plugins.
pub(crate) struct Builder<'a> {
    pub cargo: &'a Cargo,
    pub compiler: &'a Compiler,
    pub wrapper: &'a Wrapper,
    pub options: &'a Options,
    /// The driver's own target directory: cargo does not know about the wrapper and would
    /// treat artifacts built without it as up to date.
    pub directory: &'a Path,
    pub progress: Progress,
}

impl Builder<'_> {
    /// Builds all plugins of a workspace.
    pub(crate) fn all(&self, plugins: &[Plugin]) -> Result<Vec<Built>> {
        fs::create_dir_all(self.directory)
            .with_context(|| format!("failed to create `{}`", self.directory.display()))?;
        let kept = self.directory.join("hotmerge-groups.json");
        let packages: Vec<_> = plugins
            .iter()
            .map(|plugin| plugin.id.repr.clone())
            .collect();
        let inputs = self.inputs();
        if let Some(grouping) = Grouping::load(&kept, &inputs, &packages)
            && let Some(built) = self.grouped(plugins, &grouping)?
        {
            return Ok(built);
        }
        let (built, units) = self.one_by_one(plugins)?;
        Grouping::new(&inputs, packages.into_iter().zip(units).collect())
            .save(&kept)
            .with_context(|| format!("failed to write `{}`", kept.display()))?;
        Ok(built)
    }

    /// Builds some plugins of a workspace.
    pub(crate) fn some(&self, plugins: &[Plugin]) -> Result<Vec<Built>> {
        Ok(self.one_by_one(plugins)?.0)
    }

    fn one_by_one(&self, plugins: &[Plugin]) -> Result<(Vec<Built>, Vec<Units>)> {
        let mut all = (Vec::new(), Vec::new());
        for (index, plugin) in plugins.iter().enumerate() {
            self.progress.say(format!(
                "building {} ({} of {})",
                plugin.name,
                index + 1,
                plugins.len()
            ));
            let run = self.run(&[plugin])?;
            all.0.push(run.built(plugin, self.directory)?);
            all.1.push(run.units);
        }
        Ok(all)
    }

    /// `None` if the grouping is outdated.
    fn grouped(&self, plugins: &[Plugin], grouping: &Grouping) -> Result<Option<Vec<Built>>> {
        let mut runs = Vec::new();
        for group in &grouping.groups {
            let is_member = |plugin: &&Plugin| group.packages.contains(&plugin.id.repr);
            let members: Vec<_> = plugins.iter().filter(is_member).collect();
            self.progress.say(format!("building {}", names(&members)));
            let run = self.run(&members)?;
            if run.units.digest() != group.units {
                return Ok(None);
            }
            runs.push((members, run));
        }
        let of = |plugin: &Plugin| {
            let run = runs
                .iter()
                .find(|(members, _)| members.iter().any(|member| member.id == plugin.id));
            run.map(|(_, run)| run.built(plugin, self.directory))
                .transpose()
        };
        plugins.iter().map(of).collect()
    }

    fn run(&self, plugins: &[&Plugin]) -> Result<Run> {
        let started = Instant::now();
        let mut cargo = self.start(plugins)?;
        let messages = cargo.stderr.take();
        let artifacts = cargo.stdout.take().context("cargo's output is a pipe")?;
        let run = thread::scope(|scope| {
            scope.spawn(|| messages.map(|messages| self.progress.forward(messages)));
            Run::read(artifacts, started)
        })?;
        if cargo.wait()?.success() {
            return Ok(run);
        }
        Err(CommandError::new(
            exit::BUILD,
            format!(
                "cargo failed to build {}; nothing was staged",
                names(plugins)
            ),
        )
        .into())
    }

    fn start(&self, plugins: &[&Plugin]) -> Result<Child> {
        let mut cargo = self.cargo.command();
        cargo
            .args(["build", "--lib", "--message-format=json-render-diagnostics"])
            .args(["--profile", &self.options.profile])
            .arg("--target-dir")
            .arg(self.directory)
            // What the user's configuration may have put elsewhere, together with other builds.
            .env("CARGO_BUILD_BUILD_DIR", self.directory)
            .args(self.options.resolution.options());
        if let Some(target) = &self.options.target {
            cargo.args(["--target", target]);
        }
        for plugin in plugins {
            cargo.args(["--package", &plugin.id.repr]);
        }
        self.wrapper
            .apply(&mut cargo)
            .context("failed to find the driver's own file")?;
        self.progress.prepare(&mut cargo);
        cargo.stdin(Stdio::null()).stdout(Stdio::piped());
        cargo.spawn().context("failed to start cargo")
    }

    fn inputs(&self) -> Inputs<'_> {
        let Options {
            profile, target, ..
        } = self.options;
        Inputs::new(
            self.cargo.root(),
            format!("{} {profile} {target:?}", self.compiler.identity),
        )
    }
}

/// The output of one cargo run.
struct Run {
    units: Units,
    /// The plugins' libraries, and when each was finished.
    libraries: Vec<(Artifact, Duration)>,
}

impl Run {
    fn read(messages: ChildStdout, started: Instant) -> Result<Self> {
        let mut run = Self {
            units: Units::default(),
            libraries: Vec::new(),
        };
        for message in Message::parse_stream(BufReader::new(messages)) {
            if let Message::CompilerArtifact(artifact) =
                message.context("failed to read cargo's output")?
            {
                run.units.add(&artifact);
                if artifact.target.kind.contains(&TargetKind::CDyLib) {
                    run.libraries.push((artifact, started.elapsed()));
                }
            }
        }
        Ok(run)
    }

    fn built(&self, plugin: &Plugin, directory: &Path) -> Result<Built> {
        let is_plugin = |artifact: &Artifact| {
            artifact.package_id == plugin.id && artifact.target.name == plugin.target
        };
        let (artifact, took) = self
            .libraries
            .iter()
            .find(|(artifact, _)| is_plugin(artifact))
            .with_context(|| format!("cargo built `{}` but reported no file", plugin.name))?;
        let mut files = artifact.filenames.iter();
        let file = files
            .find(|file| file.extension() == Some("so"))
            .with_context(|| {
                format!(
                    "cargo built `{}` but no `.so`; hotmerge supports only ELF targets",
                    plugin.name
                )
            })?;
        Ok(Built {
            target: asked_for(file.as_std_path(), directory),
            file: file.clone().into_std_path_buf(),
            took: if artifact.fresh {
                Duration::ZERO
            } else {
                *took
            },
        })
    }
}

/// Cargo puts files for the build machine into `PROFILE/`, or into `TARGET/PROFILE/` if an
/// option, variable or configuration requests a target.
fn asked_for(file: &Path, directory: &Path) -> Option<String> {
    let mut parts = file.strip_prefix(directory).ok()?.components().rev();
    let _file = parts.next()?;
    let _profile = parts.next()?;
    let target = parts.next()?;
    Some(target.as_os_str().to_str()?.to_owned())
}

fn names(plugins: &[&Plugin]) -> String {
    let names: Vec<_> = plugins
        .iter()
        .map(|plugin| format!("`{}`", plugin.name))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_comes_from_cargos_output_path() {
        let of = |file: &str| asked_for(Path::new(file), Path::new("/t"));
        assert_eq!(of("/t/release/libx.so"), None);
        assert_eq!(
            of("/t/x86_64-unknown-linux-musl/release/libx.so").unwrap(),
            "x86_64-unknown-linux-musl"
        );
        assert_eq!(of("/elsewhere/a/release/libx.so"), None);
    }
}
