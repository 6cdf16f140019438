//! `build-plugins`: build every plugin of a workspace, stage it, notify the running host.
//!
//! Each step consumes what the one before made: discover, build, stage, notify, report. A
//! failing step leaves everything that later steps would have changed untouched.

mod compile;
mod discover;
mod exports;
mod foreign;
mod groups;
mod inputs;
mod notify;
mod progress;
mod record;
mod report;
mod stage;

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use hotmerge_meta::{Digest, RuntimeDir, count, plain};

pub use self::notify::Notify;
use self::{
    compile::{Builder, Built, Options},
    discover::{Plugin, Source, Unmarked},
    foreign::Workshop,
    notify::{Host, Notified},
    progress::Progress,
    report::Line,
    stage::{Stage, Staged, Taken},
};
use crate::{
    cargo::{self, Cargo, Compiler, Resolution, Settings},
    exit::{self, CommandError},
    output::note,
    rustc::Wrapper,
};

/// Build the plugins of a workspace, stage them and notify the running host
///
/// A plugin is a workspace member whose Cargo.toml has a [package.metadata.hotmerge] table, or, in another
/// language, a directory with a hotmerge.toml that [workspace.metadata.hotmerge] lists under `foreign`.
/// The driver stages each as STAGING/PACKAGE/{libNAME.so, plugin.meta} and writes only files
/// that differ. The same sources produce the same hash on any machine.
///
/// With --json, one object per line: plugin, version, old_hash, hash, action, reason,
/// generation, build_ms, host_ms. If a host answered, action is what the host did: loaded,
/// reloaded, unchanged, refused (with a reason), removed, or trying (a canary takes a share of
/// the calls). Otherwise action is what happened in the staging directory: staged, unchanged or
/// removed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub struct Args {
    /// Build only this plugin (repeatable)
    #[arg(short, long = "plugin", value_name = "NAME")]
    plugins: Vec<String>,
    /// Staging directory for packages [default: hotmerge/staging in cargo's target directory]
    #[arg(long, value_name = "DIR")]
    staging: Option<PathBuf>,
    /// Cargo.toml of the workspace or of one of its members [default: search upwards]
    #[arg(long, value_name = "PATH")]
    manifest_path: Option<PathBuf>,
    /// Cargo profile to build with
    #[arg(long, value_name = "NAME", default_value = "release")]
    profile: String,
    /// Target to build for [default: cargo's configured target]
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    #[command(flatten)]
    resolution: Resolution,
    /// Whether to notify a running host
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    notify: Notify,
    /// Runtime directory of the host [default: /run/hotmerge for root, otherwise hotmerge in
    /// $XDG_RUNTIME_DIR, otherwise /tmp/hotmerge-UID]
    #[arg(long, value_name = "DIR", env = RuntimeDir::VARIABLE)]
    runtime_dir: Option<PathBuf>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Runs the command; see [`exit`] for the code.
///
/// # Errors
/// If plugins cannot be built or staged.
pub fn run(args: &Args) -> Result<u8> {
    let started = Instant::now();
    let cargo = Cargo::locate(args.manifest_path.as_deref())?;
    let plan = Plan::new(&cargo, args)?;
    let built = plan.build(&cargo, args)?;
    let host = (args.notify != Notify::Never)
        .then(|| Host::find(RuntimeDir::chosen(args.runtime_dir.as_ref())));
    let (staged, taken) = plan.stage(&built)?;
    for (package, workspace) in taken {
        note(format_args!(
            "`{package}` was staged by the workspace `{}`; give one of the two another `--staging`",
            workspace.display()
        ));
    }
    note(format_args!(
        "{} in `{}`, {}",
        count(built.len() as u64, "plugin"),
        plan.staging.display(),
        report::human_ms(started.elapsed().as_secs_f64() * 1e3),
    ));
    let names = staged.iter().map(|staged| staged.plugin.clone()).collect();
    let outcome = host.map_or(Notified::Skipped, |host| host.notify(names));
    conclude(args, &plan.staging, staged, &built, outcome)
}

/// What the command will build and stage.
struct Plan {
    /// All plugins of the workspace.
    plugins: Vec<Plugin>,
    /// Those to build.
    selected: Vec<(Plugin, Source)>,
    staging: PathBuf,
    /// The workspace's canonical path.
    root: PathBuf,
    /// Where cargo builds them.
    directory: PathBuf,
    build_dir: Option<String>,
    /// Libraries of the workspace that could be plugins.
    unmarked: Vec<Unmarked>,
    compiler: Compiler,
    wrapper: Wrapper,
}

impl Plan {
    fn new(cargo: &Cargo, args: &Args) -> Result<Self> {
        let settings = Settings::read(cargo.root());
        // They are independent.
        let (workspace, compiler) = thread::scope(|scope| {
            let compiler = scope.spawn(|| cargo.compiler(&settings));
            let workspace = cargo.workspace();
            (workspace, join(compiler))
        });
        let (workspace, compiler) = (workspace?, compiler?);
        let plugins = discover::plugins(&workspace)?;
        if plugins.is_empty() {
            bail!(
                "no plugins in `{}`; mark their crates with [package.metadata.hotmerge], or list those \
                 in other languages in [workspace.metadata.hotmerge]",
                cargo.root().display(),
            );
        }
        let root = cargo.root().canonicalize()?;
        let target_directory = workspace.target_directory.as_std_path().join("hotmerge");
        // Cargo names the files of a path dependency after its path within the workspace, and
        // would take those of another workspace for up to date.
        let directory = target_directory
            .join("build")
            .join(Digest::of(root.as_os_str().as_encoded_bytes()).short());
        let build_dir = settings
            .moves_builds
            .then(|| compile::template(&directory, workspace.workspace_root.as_std_path()))
            .transpose()?;
        Ok(Self {
            selected: discover::select(&plugins, &args.plugins)?,
            plugins: plugins.into_iter().map(|(plugin, _)| plugin).collect(),
            staging: match &args.staging {
                Some(staging) => std::path::absolute(staging)?,
                None => target_directory.join("staging"),
            },
            unmarked: discover::unmarked(&workspace),
            directory,
            build_dir,
            root,
            compiler,
            wrapper: Wrapper {
                next: settings.wrapper,
                lock: cargo.root().join("Cargo.lock"),
            },
        })
    }

    fn is_full(&self) -> bool {
        self.selected.len() == self.plugins.len()
    }

    fn build(&self, cargo: &Cargo, args: &Args) -> Result<Vec<(Plugin, Built)>> {
        let builder = Builder {
            cargo,
            compiler: &self.compiler,
            wrapper: &self.wrapper,
            options: &Options {
                profile: args.profile.clone(),
                target: args.target.clone().map(cargo::from_here),
                resolution: args.resolution,
            },
            directory: &self.directory,
            build_dir: self.build_dir.as_deref(),
            progress: Progress::new(),
        };
        let crates: Vec<_> = self
            .selected
            .iter()
            .filter_map(|(_, source)| source.of_cargo().cloned())
            .collect();
        let mut by_cargo = match crates.as_slice() {
            [] => Vec::new(),
            _ if self.is_full() => builder.all(&crates)?,
            _ => builder.some(&crates)?,
        }
        .into_iter();
        let workshop = Workshop::new(&builder);
        let built = |(plugin, source): &(Plugin, Source)| -> Result<(Plugin, Built)> {
            let built = match source {
                Source::Crate(_) => by_cargo.next().context("cargo built one for each")?,
                Source::Foreign(foreign) => workshop.build(plugin, foreign)?,
            };
            Ok((plugin.clone(), built))
        };
        self.selected.iter().map(built).collect()
    }

    fn stage(&self, built: &[(Plugin, Built)]) -> Result<(Vec<Staged>, Vec<Taken>)> {
        Stage {
            staging: &self.staging,
            workspace: &self.root,
            plugins: &self.plugins,
            unmarked: &self.unmarked,
            is_full: self.is_full(),
            host: &self.compiler.host,
        }
        .run(built)
    }
}

/// A thread's result; its panic resumes here.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Reports the result and returns the exit code.
fn conclude(
    args: &Args,
    staging: &Path,
    staged: Vec<Staged>,
    built: &[(Plugin, Built)],
    outcome: Notified,
) -> Result<u8> {
    let host = match &outcome {
        Notified::Report(report) => report.plugins.as_slice(),
        _ => &[],
    };
    let lines: Vec<_> = staged
        .into_iter()
        .map(|staged| {
            let host = host.iter().find(|report| report.plugin == staged.plugin);
            Line::new(staged, built, host)
        })
        .collect();
    if args.json {
        report::json(&lines)?;
    } else {
        report::table(&lines);
    }
    for line in &lines {
        if let Some(reason) = line.why_removed() {
            note(format_args!("removed `{}`: {reason}", line.plugin()));
        }
    }
    let refused = lines.iter().filter(|line| line.is_refused()).count();
    match outcome {
        Notified::Skipped => {}
        Notified::NoHost(why) | Notified::Unknown(why) if args.notify == Notify::Require => {
            return Err(CommandError::new(exit::NO_HOST, why).into());
        }
        Notified::NoHost(why) => note(format_args!("staged only: {why}")),
        Notified::Unknown(why) => note(format_args!("the host's result is unknown: {why}")),
        Notified::Report(report) => {
            for problem in &report.problems {
                note(format_args!(
                    "the host cannot read `{}`: {}",
                    plain(&problem.package),
                    plain(&problem.reason)
                ));
            }
            if !is_same(staging, &report.plugin_dir) {
                let why = format!(
                    "the host serves `{}`, not the staging directory `{}`; start it with \
                     `--plugin-dir`, or pass `--staging`",
                    report.plugin_dir.display(),
                    staging.display(),
                );
                if args.notify == Notify::Require {
                    return Err(CommandError::new(exit::NO_HOST, why).into());
                }
                note(format_args!("{why}"));
            }
            note(format_args!(
                "the host took {}",
                report::human_ms(report.took_ms)
            ));
        }
    }
    Ok(if refused > 0 { exit::REFUSED } else { exit::OK })
}

/// Whether both are the same directory. A relative path of the host has no meaning here.
fn is_same(staging: &Path, plugin_dir: &Path) -> bool {
    let identity = |path: &Path| {
        let metadata = path.metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    plugin_dir.is_absolute()
        && match (identity(staging), identity(plugin_dir)) {
            (Some(staging), Some(plugin_dir)) => staging == plugin_dir,
            // The host may have access where this user has none.
            _ => staging == plugin_dir,
        }
}
