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

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Artifact, Message, TargetKind};
use hotmerge_meta::image::ENTRY_SYMBOL;

use super::{
    discover::Crate,
    exports::exports_a_plugin,
    groups::{Grouping, Units},
    inputs::Inputs,
    progress::Progress,
};
use crate::{
    cargo::{Cargo, Compiler, Resolution},
    exit::{self, CommandError},
    owner,
    rustc::Wrapper,
};

const BUILD_DIR: &str = "CARGO_BUILD_BUILD_DIR";

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
    /// The same as cargo's setting `build-dir` spells it, if the user's configuration sets that.
    pub build_dir: Option<&'a str>,
    pub progress: Progress,
}

impl Builder<'_> {
    /// Builds all plugins of a workspace.
    pub(crate) fn all(&self, plugins: &[Crate]) -> Result<Vec<Built>> {
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
    pub(crate) fn some(&self, plugins: &[Crate]) -> Result<Vec<Built>> {
        Ok(self.one_by_one(plugins)?.0)
    }

    fn one_by_one(&self, plugins: &[Crate]) -> Result<(Vec<Built>, Vec<Units>)> {
        let mut all = (Vec::new(), Vec::new());
        for (index, plugin) in plugins.iter().enumerate() {
            self.progress.say(format!(
                "building {} ({} of {})",
                plugin.name,
                index + 1,
                plugins.len()
            ));
            let run = self.alone(plugin)?;
            all.0.push(self.built(&run, plugin)?);
            all.1.push(run.units);
        }
        Ok(all)
    }

    /// `None` if the grouping is outdated.
    fn grouped(&self, plugins: &[Crate], grouping: &Grouping) -> Result<Option<Vec<Built>>> {
        let mut runs = Vec::new();
        for group in &grouping.groups {
            let is_member = |plugin: &&Crate| group.packages.contains(&plugin.id.repr);
            let members: Vec<_> = plugins.iter().filter(is_member).collect();
            self.progress.say(format!("building {}", names(&members)));
            let run = self.run(&members)?;
            if run.units.digest() != group.units {
                return Ok(None);
            }
            runs.push((members, run));
        }
        let of = |plugin: &Crate| {
            let run = runs
                .iter()
                .find(|(members, _)| members.iter().any(|member| member.id == plugin.id));
            run.map(|(_, run)| self.built(run, plugin)).transpose()
        };
        plugins.iter().map(of).collect()
    }

    /// Builds one plugin, and refuses it if it links another plugin.
    fn alone(&self, plugin: &Crate) -> Result<Run> {
        let (run, is_good) = self.try_run(&[plugin])?;
        let is_linked =
            |artifact: &&Artifact| artifact.package_id != plugin.id && exports_a_plugin(artifact);
        let mut libraries = run.libraries.iter().map(|(artifact, _)| artifact);
        match libraries.find(is_linked) {
            Some(linked) => Err(CommandError::new(
                exit::BUILD,
                format!(
                    "`{}` links the plugin `{}`, and both export `{ENTRY_SYMBOL}`; move what \
                     they share into a crate that exports no plugin; nothing was staged",
                    plugin.name, linked.target.name,
                ),
            )
            .into()),
            None if is_good => Ok(run),
            None => Err(failed(&[plugin])),
        }
    }

    /// The plugin's own library. If cargo took the library of another package with the same
    /// target name for it, it is built again.
    fn built(&self, run: &Run, plugin: &Crate) -> Result<Built> {
        let built = run.built(plugin, self.directory)?;
        let Some(foreign) = owner::made_by_another(&built.file, &plugin.manifest) else {
            return Ok(built);
        };
        fs::remove_file(&foreign)
            .with_context(|| format!("failed to delete `{}`", foreign.display()))?;
        let built = self.run(&[plugin])?.built(plugin, self.directory)?;
        if owner::made_by_another(&built.file, &plugin.manifest).is_some() {
            bail!(
                "a package other than `{}` built `{}`; try again when no other build uses that directory",
                plugin.name,
                built.file.display()
            );
        }
        Ok(built)
    }

    fn run(&self, plugins: &[&Crate]) -> Result<Run> {
        match self.try_run(plugins)? {
            (run, true) => Ok(run),
            (run, false) => {
                let is_built = |plugin: &&Crate| run.library(plugin).is_some();
                let mut broken = plugins.to_vec();
                broken.retain(|plugin| !is_built(plugin));
                Err(failed(&broken))
            }
        }
    }

    /// What cargo built, and whether it built everything requested.
    fn try_run(&self, plugins: &[&Crate]) -> Result<(Run, bool)> {
        let started = Instant::now();
        let mut cargo = self.start(plugins)?;
        let messages = cargo.stderr.take();
        let artifacts = cargo.stdout.take().context("cargo's output is a pipe")?;
        let run = thread::scope(|scope| {
            scope.spawn(|| messages.map(|messages| self.progress.forward(messages)));
            Run::read(artifacts, started)
        })?;
        Ok((run, cargo.wait()?.success()))
    }

    fn start(&self, plugins: &[&Crate]) -> Result<Child> {
        let mut cargo = self.cargo.command();
        cargo
            .args(["build", "--lib", "--message-format=json-render-diagnostics"])
            // Reports every broken plugin at once, and shows which ones are fine.
            .arg("--keep-going")
            .args(["--profile", &self.options.profile])
            .arg("--target-dir")
            .arg(self.directory)
            .args(self.options.resolution.options());
        match self.build_dir {
            Some(template) => cargo.env(BUILD_DIR, template),
            None => cargo.env_remove(BUILD_DIR),
        };
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

    fn library(&self, plugin: &Crate) -> Option<&(Artifact, Duration)> {
        self.libraries.iter().find(|(artifact, _)| {
            artifact.package_id == plugin.id
                && artifact.target.name.replace('-', "_") == plugin.target
        })
    }

    fn built(&self, plugin: &Crate, directory: &Path) -> Result<Built> {
        let (artifact, took) = self
            .library(plugin)
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

/// `directory` as cargo's setting `build-dir` spells it: cargo reserves braces there, and has no
/// way to escape them.
pub(super) fn template(directory: &Path, root: &Path) -> Result<String> {
    // Cargo runs there.
    let path = directory.strip_prefix(root).unwrap_or(directory);
    match path.to_str() {
        Some(path) if !path.contains(['{', '}']) => Ok(path.to_owned()),
        _ => bail!(
            "cargo's setting `build.build-dir` cannot name a directory with braces, such as `{}`; \
             choose another target directory, or remove the setting",
            directory.display()
        ),
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

fn failed(plugins: &[&Crate]) -> anyhow::Error {
    let message = match plugins {
        [] => "cargo failed; nothing was staged".to_owned(),
        _ => format!(
            "cargo failed to build {}; nothing was staged",
            names(plugins)
        ),
    };
    CommandError::new(exit::BUILD, message).into()
}

fn names(plugins: &[&Crate]) -> String {
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
    fn a_build_directory_has_no_braces_for_cargo() {
        let of = |directory: &str| template(Path::new(directory), Path::new("/a{b}"));
        assert_eq!(of("/a{b}/target").unwrap(), "target");
        assert_eq!(of("/target").unwrap(), "/target");
        assert!(of("/{target}").is_err());
    }

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
