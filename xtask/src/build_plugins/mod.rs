//! `build-plugins`: build every plugin of a workspace, stage it, tell the running host.
//!
//! Each step consumes what the one before made: discovered, built, staged, told, reported. A
//! step that fails leaves what the later ones would have changed as it was.

mod compile;
mod discover;
mod groups;
mod inputs;
mod notify;
mod progress;
mod record;
mod report;
mod stage;

use std::{
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use anyhow::{Result, bail};
use hotmerge_meta::{RuntimeDir, plain};

pub use self::notify::Notify;
use self::{
    compile::{Builder, Built, Options},
    discover::Plugin,
    notify::{Host, Told},
    progress::Progress,
    report::Line,
    stage::{Stage, Staged},
};
use crate::{
    cargo::{Cargo, Compiler, Resolution, Settings},
    exit::{self, Failure},
    rustc::Wrapper,
};

/// Build the plugins of a workspace, stage them and tell the running host
///
/// Plugins are the members of the workspace with a [package.metadata.hotmerge] in their
/// Cargo.toml. Each is staged as STAGING/PACKAGE/{libNAME.so, plugin.meta}; only what
/// differs is written. The same sources give the same hash wherever they are built.
///
/// With --json, one object a line: plugin, version, old_hash, hash, action, reason,
/// generation, build_ms, host_ms. If a host answered, the action is what it did: loaded,
/// reloaded, unchanged, refused (with a reason), removed, or trying (a share of the calls goes
/// to it). Otherwise it is what happened in the staging directory: staged, unchanged or
/// removed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub struct Args {
    /// Build only this plugin (may be given several times)
    #[arg(short, long = "plugin", value_name = "NAME")]
    plugins: Vec<String>,
    /// Where packages go [default: hotmerge/staging in cargo's target directory]
    #[arg(long, value_name = "DIR")]
    staging: Option<PathBuf>,
    /// The Cargo.toml of the workspace, or of one of its members [default: search upwards]
    #[arg(long, value_name = "PATH")]
    manifest_path: Option<PathBuf>,
    /// The cargo profile to build with
    #[arg(long, value_name = "NAME", default_value = "release")]
    profile: String,
    /// The target to build for [default: what cargo is configured for]
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    #[command(flatten)]
    resolution: Resolution,
    /// Whether to tell a running host
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    notify: Notify,
    /// Where the host is found [default: /run/hotmerge for root, otherwise hotmerge in
    /// $XDG_RUNTIME_DIR, otherwise /tmp/hotmerge-UID]
    #[arg(long, value_name = "DIR", env = RuntimeDir::VARIABLE)]
    runtime_dir: Option<PathBuf>,
    /// Write one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs the command; see [`exit`] for the code.
///
/// # Errors
/// Whatever kept plugins from being built and staged.
pub fn run(args: &Args) -> Result<u8> {
    let started = Instant::now();
    let cargo = Cargo::locate(args.manifest_path.as_deref())?;
    let plan = Plan::new(&cargo, args)?;
    let built = plan.build(&cargo, args)?;
    let host = (args.notify != Notify::Never)
        .then(|| Host::find(RuntimeDir::chosen(args.runtime_dir.as_ref())));
    let staged = plan.stage(&cargo, &built)?;
    note(format_args!(
        "{} in `{}`, {}",
        count(built.len()),
        plan.staging.display(),
        report::human_ms(started.elapsed().as_secs_f64() * 1e3),
    ));
    let names = staged.iter().map(|staged| staged.plugin.clone()).collect();
    let told = host.map_or(Told::Nobody, |host| host.tell(names));
    conclude(args, &plan.staging, staged, &built, told)
}

/// What is to be done.
struct Plan {
    /// All plugins of the workspace.
    plugins: Vec<Plugin>,
    /// Those to build.
    selected: Vec<Plugin>,
    staging: PathBuf,
    /// Where cargo builds them.
    directory: PathBuf,
    compiler: Compiler,
    wrapper: Wrapper,
}

impl Plan {
    fn new(cargo: &Cargo, args: &Args) -> Result<Self> {
        let settings = Settings::read(cargo.root())?;
        // None of the three needs another.
        let (workspace, compiler, twins) = thread::scope(|scope| {
            let compiler = scope.spawn(|| cargo.compiler(&settings));
            let twins = scope.spawn(|| discover::twins(cargo.root()));
            let workspace = cargo.workspace();
            (workspace, join(compiler), join(twins))
        });
        let (workspace, compiler, twins) = (workspace?, compiler?, twins?);
        let plugins = discover::plugins(&workspace)?;
        if plugins.is_empty() {
            bail!(
                "no plugins in `{}`; mark their crates with [package.metadata.hotmerge]",
                cargo.root().display(),
            );
        }
        let target_directory = workspace.target_directory.as_std_path().join("hotmerge");
        Ok(Self {
            selected: discover::select(&plugins, &args.plugins)?,
            plugins,
            staging: match &args.staging {
                Some(staging) => std::path::absolute(staging)?,
                None => target_directory.join("staging"),
            },
            directory: target_directory.join("build"),
            compiler,
            wrapper: Wrapper {
                next: settings.wrapper,
                twins,
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
                target: args.target.clone(),
                resolution: args.resolution,
            },
            directory: &self.directory,
            progress: Progress::new(),
        };
        let built = if self.is_full() {
            builder.all(&self.selected)?
        } else {
            builder.some(&self.selected)?
        };
        Ok(self.selected.iter().cloned().zip(built).collect())
    }

    fn stage(&self, cargo: &Cargo, built: &[(Plugin, Built)]) -> Result<Vec<Staged>> {
        Stage {
            staging: &self.staging,
            workspace: cargo.root(),
            plugins: &self.plugins,
            is_full: self.is_full(),
            host: &self.compiler.host,
        }
        .run(built)
    }
}

/// What a thread returned; its panic goes on here.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Reports, and says how it ended.
fn conclude(
    args: &Args,
    staging: &Path,
    staged: Vec<Staged>,
    built: &[(Plugin, Built)],
    told: Told,
) -> Result<u8> {
    let host = match &told {
        Told::Answer(report) => report.plugins.as_slice(),
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
        report::table(&lines)?;
    }
    let refused = lines.iter().filter(|line| line.is_refused()).count();
    match told {
        Told::Nobody => {}
        Told::NoHost(why) | Told::Unknown(why) if args.notify == Notify::Require => {
            return Err(Failure::new(exit::NO_HOST, why).into());
        }
        Told::NoHost(why) => note(format_args!("staged only: {why}")),
        Told::Unknown(why) => note(format_args!("what the host did is unknown: {why}")),
        Told::Answer(report) => {
            for problem in &report.problems {
                note(format_args!(
                    "the host cannot read `{}`: {}",
                    plain(&problem.package),
                    plain(&problem.reason)
                ));
            }
            note_other_directory(staging, &report.plugin_dir);
            note(format_args!(
                "the host took {}",
                report::human_ms(report.took_ms)
            ));
        }
    }
    Ok(if refused > 0 { exit::REFUSED } else { exit::OK })
}

fn note_other_directory(staging: &Path, plugin_dir: &Path) {
    let is_same = match (staging.canonicalize(), plugin_dir.canonicalize()) {
        (Ok(staging), Ok(plugin_dir)) => staging == plugin_dir,
        _ => staging == plugin_dir,
    };
    if !is_same {
        note(format_args!(
            "the host serves `{}`, not what was staged in `{}`; start it with `--plugin-dir`, or give `--staging`",
            plugin_dir.display(),
            staging.display(),
        ));
    }
}

fn count(plugins: usize) -> String {
    match plugins {
        1 => "1 plugin".to_owned(),
        many => format!("{many} plugins"),
    }
}

/// For people, beside the output that may be for programs.
fn note(text: std::fmt::Arguments<'_>) {
    anstream::eprintln!("{text}");
}
