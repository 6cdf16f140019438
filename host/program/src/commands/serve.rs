//! `hotmerge serve`: the host itself.

use std::{path::PathBuf, sync::Arc, thread};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use hotmerge_daemon::{
    Config, Finding, Host, StartError, Verdict, config::Isolation, examine, give_back_large_blocks,
};
use hotmerge_door::{AskToStop, Door, Server};
use hotmerge_meta::{
    RuntimeDir,
    runtime::{PidFile, RuntimeError},
};
use hotmerge_observe::log;
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use sd_notify::NotifyState;

use super::front::{self, Front};
use crate::{
    exit::{self, Failure},
    manager, output,
    place::Place,
    signals::{Order, Orders},
};

/// Run the host: load the plugins of a directory and reload them as they change.
///
/// SIGHUP rescans the directory. SIGTERM and SIGINT stop the host once running calls have
/// finished; SIGQUIT does so too, after logging a report. Only one host can use a runtime
/// directory.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// Plugin directory, with one subdirectory per package
    #[arg(long, value_name = "DIR")]
    plugin_dir: Option<PathBuf>,
    /// Directory for the control socket and the pid file [default: /run/hotmerge for root,
    /// otherwise $XDG_RUNTIME_DIR/hotmerge, otherwise /tmp/hotmerge-UID]
    #[arg(long, value_name = "DIR", env = RuntimeDir::VARIABLE)]
    runtime_dir: Option<PathBuf>,
    /// Directory for last good versions, pins and rollbacks [default: /var/lib/hotmerge for root,
    /// otherwise $XDG_STATE_HOME/hotmerge, otherwise ~/.local/state/hotmerge]
    #[arg(long, value_name = "DIR", env = "HOTMERGE_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Configuration file (TOML); command-line options override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Program that runs a sandboxed plugin [default: hotmerge-worker next to this program, then
    /// in ../libexec/hotmerge, then in /usr/libexec/hotmerge]
    #[arg(long, value_name = "PATH")]
    worker: Option<PathBuf>,
    /// Check the configuration, the plugin directory and the system, then exit
    #[arg(long)]
    check: bool,
    /// What to log: a level, or levels by target (`info`, `warn,plugin=debug`).
    ///
    /// Targets: `hotmerge::host`, `hotmerge::plugin` (what happens to plugins), `hotmerge::worker`,
    /// `hotmerge::door`, `hotmerge::audit`, `hotmerge::watch`, and `plugin` (what plugins log themselves). A level
    /// alone is for these; libraries are logged only if named (`info,notify=debug`).
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "HOTMERGE_LOG"
    )]
    log: String,
    /// Log format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// How log records look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// One line per record, for people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

impl From<LogFormat> for log::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        give_back_large_blocks();
        // Before anything else gets their numbers.
        let inherited = front::inherited()?;
        let config = self.configuration()?;
        let plugin_dir = Host::check(&config).map_err(|error| Failure::new(exit::CONFIG, error))?;
        if self.check {
            output::print(format_args!(
                "configuration and plugin directory `{}` can be used\n",
                plugin_dir.display()
            ))?;
            check_grants(&config)?;
            return check(&config);
        }
        let dir = RuntimeDir::chosen(config.runtime_dir.as_ref());
        let _log = log::start(self.log_format.into(), &self.log)
            .map_err(|error| Failure::new(exit::CONFIG, error))?;
        // Only when no signal kills any more may others learn the pid.
        let mut orders = Orders::take().context("failed to take signals")?;
        allow_more_files();
        let pid_file = lock(&dir)?;
        let host = start(config.clone()).map_err(|error| Failure::new(exit::CONFIG, error))?;
        host.show_log_dropped(log::dropped);
        let host = Arc::new(host);
        let door = Door::new(Arc::clone(&host), Box::new(StopBySignal));
        let server = Server::open(&dir, Arc::clone(&door))?;
        let front = Arc::new(front::open(&config.http, inherited, door)?);
        pid_file.write_pid()?;
        let place = Place::new(dir, pid_file, server);
        let kept = Arc::downgrade(&place);
        host.at_every_look(move || {
            if let Some(place) = kept.upgrade() {
                place.keep();
            }
        });
        announce_ready(&host, &front)?;
        loop {
            match orders.next() {
                Order::Rescan => reload(&host),
                Order::Stop => break,
                Order::ReportAndStop => {
                    report(&host);
                    break;
                }
            }
        }
        tracing::info!(target: "hotmerge::host", "stopping");
        manager::tell(&[NotifyState::Stopping]);
        place.server.close();
        front::close((*front).as_ref());
        let left = host.stop();
        if left > 0 {
            tracing::warn!(target: "hotmerge::host", "{left} old versions had not ended in time");
        } else {
            place.server.finish();
        }
        Ok(())
    }

    fn configuration(&self) -> Result<Config, Failure> {
        let mut config = super::host::configuration(self.config.as_deref())?;
        if self.plugin_dir.is_some() {
            config.plugin_dir.clone_from(&self.plugin_dir);
        }
        if self.runtime_dir.is_some() {
            config.runtime_dir.clone_from(&self.runtime_dir);
        }
        if self.worker.is_some() {
            config.worker.clone_from(&self.worker);
        }
        if self.state_dir.is_some() {
            config.state_dir.clone_from(&self.state_dir);
        }
        config.isolation.get_or_insert(Isolation::Auto);
        Ok(config)
    }
}

/// Tries what a host with this configuration needs, and says what came of it, part by part.
fn check(config: &Config) -> Result<(), Failure> {
    let (bad, usable): (Vec<_>, Vec<_>) = examine(config)
        .into_iter()
        .partition(|it| it.verdict == Verdict::Bad);
    for Finding {
        part,
        verdict,
        text,
    } in usable
    {
        let warning = match verdict {
            Verdict::Less => "warning: ",
            Verdict::Good | Verdict::Bad => "",
        };
        output::print(format_args!("{warning}{part}: {text}\n"))?;
    }
    if bad.is_empty() {
        return Ok(());
    }
    let told = bad.iter().map(|it| format!("{}: {}", it.part, it.text));
    let told = told.collect::<Vec<_>>().join("\n");
    Err(Failure::text(exit::CONFIG, told))
}

/// Whether granted paths lead where they should.
fn check_grants(config: &Config) -> Result<(), Failure> {
    let refused = Host::check_grants(config);
    refused.map_err(|reasons| Failure::new(exit::CONFIG, anyhow::anyhow!(reasons.join("; "))))
}

/// Most files that a host may open, however many the system would permit.
const MOST_FILES: u64 = 1 << 20;

/// Each worker takes about a dozen descriptors, and the soft limit is often 1024.
fn allow_more_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit
        .maximum
        .map_or(MOST_FILES, |most| most.min(MOST_FILES));
    if limit.current.is_none_or(|current| current >= most) {
        return;
    }
    let raised = Rlimit {
        current: Some(most),
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(target: "hotmerge::host", "failed to raise the limit of open files to {most}: {error}");
    }
}

/// A state directory that nobody asked for is used if it can be.
fn start(config: Config) -> Result<Host, StartError> {
    let Some(default) = Config::default_state_dir().filter(|_| config.state_dir.is_none()) else {
        return Host::start(config);
    };
    let mut with_state = config.clone();
    with_state.state_dir = Some(default);
    match Host::start(with_state) {
        Err(StartError::State(error)) => {
            tracing::warn!(target: "hotmerge::host", "versions are not kept for a rollback: {error}; pass `--state-dir`");
            Host::start(config)
        }
        other => other,
    }
}

fn lock(dir: &RuntimeDir) -> Result<PidFile, Failure> {
    dir.create()?;
    PidFile::acquire(dir).map_err(|error| {
        let code = match error {
            RuntimeError::Held { .. } => exit::OTHER_HOST,
            RuntimeError::Denied { .. } => exit::DENIED,
            _ => exit::FAILURE,
        };
        Failure::new(code, error)
    })
}

/// Says that the host is ready once the first pass over the plugins is done; meanwhile
/// signals are taken already.
fn announce_ready(host: &Arc<Host>, front: &Arc<Option<Front>>) -> Result<(), Failure> {
    let (host, front) = (Arc::clone(host), Arc::clone(front));
    thread::Builder::new()
        .name("ready".into())
        .spawn(move || {
            host.settle();
            host.forget_gone();
            front::ready((*front).as_ref());
            let status = host.status();
            let active = status.plugins.iter().filter(|plugin| plugin.generation > 0);
            tracing::info!(target: "hotmerge::host", plugins = active.count(), "ready");
            manager::tell(&[NotifyState::Ready]);
        })
        .context("failed to start a thread")?;
    Ok(())
}

/// Tells the service manager around the rescan, so that its `reload` waits for it.
fn reload(host: &Host) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => manager::tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(target: "hotmerge::host", "failed to read the clock: {error}"),
    }
    host.rescan();
    manager::tell(&[NotifyState::Ready]);
}

/// Logs what runs, one record per plugin.
fn report(host: &Host) {
    let status = host.status();
    let (rescans, watch) = (status.host.rescans, &status.host.watch);
    tracing::info!(target: "hotmerge::host", plugins = status.plugins.len(), rescans, %watch, "report");
    for plugin in &status.plugins {
        let worker = plugin.worker.as_ref().and_then(|worker| worker.pid);
        tracing::info!(target: "hotmerge::host",
            plugin = plugin.name,
            version = plugin.version,
            state = %plugin.state,
            reason = plugin.reason,
            generation = plugin.generation,
            restarts = plugin.restarts,
            worker,
            "report"
        );
    }
}

/// A request to stop goes the way of every other one.
#[derive(Debug)]
struct StopBySignal;

impl AskToStop for StopBySignal {
    fn stop(&self) {
        if let Err(error) = kill_process(getpid(), Signal::TERM) {
            tracing::error!(target: "hotmerge::host", "failed to stop on request: {error}");
        }
    }
}
