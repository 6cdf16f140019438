//! Building plugins with cargo: from packages to files.
//!
//! Invariant: a plugin is built as if it were built alone, see [`groups`](super::groups), and
//! with the user's flags, see [`rustc`](crate::rustc).
//!
//! Absent on purpose: guessing where cargo puts a file. Cargo says so.

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
    discover::Plugin,
    exports::exports_a_plugin,
    groups::{Grouping, Units},
    inputs::Inputs,
    progress::Progress,
};
use crate::{
    cargo::{Cargo, Compiler, Resolution},
    exit::{self, Failure},
    owner,
    rustc::Wrapper,
};

const BUILD_DIR: &str = "CARGO_BUILD_BUILD_DIR";

/// How plugins are built.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub profile: String,
    /// As given on the command line; cargo may know of another from its configuration.
    pub target: Option<String>,
    pub resolution: Resolution,
}

/// A plugin's file, as cargo left it.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub file: PathBuf,
    /// The target that it was built for, if cargo was asked for any.
    pub target: Option<String>,
    /// Time from cargo's start to the finished file; zero if it was there already.
    pub took: Duration,
}

/// Cargo, set up to build plugins.
pub(crate) struct Builder<'a> {
    pub cargo: &'a Cargo,
    pub compiler: &'a Compiler,
    pub wrapper: &'a Wrapper,
    pub options: &'a Options,
    /// A target directory of the driver's own: cargo does not know of the wrapper, and would
    /// take what was built without it for up to date.
    pub directory: &'a Path,
    /// The same as cargo reads it, where the user's configuration puts builds elsewhere.
    pub build_dir: Option<&'a str>,
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
            let run = self.alone(plugin)?;
            all.0.push(self.built(&run, plugin)?);
            all.1.push(run.units);
        }
        Ok(all)
    }

    /// `None` if the grouping turned out not to hold any more.
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
            run.map(|(_, run)| self.built(run, plugin)).transpose()
        };
        plugins.iter().map(of).collect()
    }

    /// Builds one plugin, and sees what it links.
    fn alone(&self, plugin: &Plugin) -> Result<Run> {
        let (run, is_good) = self.try_run(&[plugin])?;
        let is_linked =
            |artifact: &&Artifact| artifact.package_id != plugin.id && exports_a_plugin(artifact);
        let mut libraries = run.libraries.iter().map(|(artifact, _)| artifact);
        match libraries.find(is_linked) {
            Some(linked) => Err(Failure::new(
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

    /// The plugin's own library. Where cargo took that of another package of the same name for
    /// it, it is built again.
    fn built(&self, run: &Run, plugin: &Plugin) -> Result<Built> {
        let built = run.built(plugin, self.directory)?;
        let Some(foreign) = owner::made_by_another(&built.file, &plugin.manifest) else {
            return Ok(built);
        };
        fs::remove_file(&foreign)
            .with_context(|| format!("failed to delete `{}`", foreign.display()))?;
        let built = self.run(&[plugin])?.built(plugin, self.directory)?;
        if owner::made_by_another(&built.file, &plugin.manifest).is_some() {
            bail!(
                "another package than `{}` built `{}`; build again when nobody else builds there",
                plugin.name,
                built.file.display()
            );
        }
        Ok(built)
    }

    fn run(&self, plugins: &[&Plugin]) -> Result<Run> {
        match self.try_run(plugins)? {
            (run, true) => Ok(run),
            (run, false) => {
                let is_built = |plugin: &&Plugin| run.library(plugin).is_some();
                let mut broken = plugins.to_vec();
                broken.retain(|plugin| !is_built(plugin));
                Err(failed(&broken))
            }
        }
    }

    /// What cargo built, and whether that is all that it was asked for.
    fn try_run(&self, plugins: &[&Plugin]) -> Result<(Run, bool)> {
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

    fn start(&self, plugins: &[&Plugin]) -> Result<Child> {
        let mut cargo = self.cargo.command();
        cargo
            .args(["build", "--lib", "--message-format=json-render-diagnostics"])
            // All that is broken is shown at once, and what is not is known to be fine.
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

/// What one run of cargo said.
struct Run {
    units: Units,
    /// The plugins' libraries, and when they were there.
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
                message.context("failed to read what cargo says")?
            {
                run.units.add(&artifact);
                if artifact.target.kind.contains(&TargetKind::CDyLib) {
                    run.libraries.push((artifact, started.elapsed()));
                }
            }
        }
        Ok(run)
    }

    fn library(&self, plugin: &Plugin) -> Option<&(Artifact, Duration)> {
        self.libraries.iter().find(|(artifact, _)| {
            artifact.package_id == plugin.id
                && artifact.target.name.replace('-', "_") == plugin.target
        })
    }

    fn built(&self, plugin: &Plugin, directory: &Path) -> Result<Built> {
        let (artifact, took) = self
            .library(plugin)
            .with_context(|| format!("cargo built `{}` but names no file", plugin.name))?;
        let mut files = artifact.filenames.iter();
        let file = files
            .find(|file| file.extension() == Some("so"))
            .with_context(|| {
                format!(
                    "cargo built `{}` but no `.so`; hotmerge works with ELF targets only",
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

/// `directory` as cargo's setting `build-dir` spells it: braces are cargo's own there, and
/// nothing stands for them.
pub(super) fn template(directory: &Path, root: &Path) -> Result<String> {
    // Cargo runs there.
    let path = directory.strip_prefix(root).unwrap_or(directory);
    match path.to_str() {
        Some(path) if !path.contains(['{', '}']) => Ok(path.to_owned()),
        _ => bail!(
            "cargo's setting `build.build-dir` can name no directory with braces, such as `{}`; \
             choose another target directory, or leave the setting out",
            directory.display()
        ),
    }
}

/// Cargo puts files for the host into `PROFILE/`, and into `TARGET/PROFILE/` if it was asked
/// for a target, by whatever option, variable or configuration.
fn asked_for(file: &Path, directory: &Path) -> Option<String> {
    let mut parts = file.strip_prefix(directory).ok()?.components().rev();
    let _file = parts.next()?;
    let _profile = parts.next()?;
    let target = parts.next()?;
    Some(target.as_os_str().to_str()?.to_owned())
}

fn failed(plugins: &[&Plugin]) -> anyhow::Error {
    let message = match plugins {
        [] => "cargo failed; nothing was staged".to_owned(),
        _ => format!(
            "cargo failed to build {}; nothing was staged",
            names(plugins)
        ),
    };
    Failure::new(exit::BUILD, message).into()
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
    fn a_build_directory_has_no_braces_for_cargo() {
        let of = |directory: &str| template(Path::new(directory), Path::new("/a{b}"));
        assert_eq!(of("/a{b}/target").unwrap(), "target");
        assert_eq!(of("/target").unwrap(), "/target");
        assert!(of("/{target}").is_err());
    }

    #[test]
    fn the_target_is_read_from_where_cargo_puts_the_file() {
        let of = |file: &str| asked_for(Path::new(file), Path::new("/t"));
        assert_eq!(of("/t/release/libx.so"), None);
        assert_eq!(
            of("/t/x86_64-unknown-linux-musl/release/libx.so").unwrap(),
            "x86_64-unknown-linux-musl"
        );
        assert_eq!(of("/elsewhere/a/release/libx.so"), None);
    }
}
