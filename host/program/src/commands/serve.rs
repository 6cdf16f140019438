//! `hotmerge serve`: the host itself.

use std::{path::PathBuf, sync::Arc, thread};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use hotmerge_daemon::{
    Config, ConfigError, Finding, Host, StartError, Verdict, config::Isolation, examine,
    give_back_large_blocks,
};
use hotmerge_door::{AskToStop, Door, Server};
use hotmerge_meta::{
    RuntimeDir, count,
    runtime::{PidFile, RuntimeError},
};
use hotmerge_observe::{
    log,
    records::{Limits, Records},
    sinks::Router,
};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use sd_notify::NotifyState;

use super::front::{self, Front, Inherited};
use crate::{
    exit::{self, CommandError},
    log_sinks::Log,
    manager, output,
    place::Place,
    plan::{check as check_sinks, plan},
    reloads::Reloads,
    signals::{Order, Orders},
};

/// Run the host: load the plugins of a directory and reload them as they change.
///
/// SIGHUP reads the configuration again and rescans the directory. SIGUSR2 logs a report. SIGTERM and
/// SIGINT stop the host once running calls have finished, and at once the second time; SIGQUIT
/// stops it too, after logging a report. Only one host can use a runtime directory.
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
    /// What to log: a level, or levels per target (`info`, `warn,plugin=debug`).
    ///
    /// Targets: `hotmerge::host`, `hotmerge::plugin` (what happens to plugins), `hotmerge::worker`,
    /// `hotmerge::door`, `hotmerge::audit`, `hotmerge::watch`, and `plugin` (what plugins log themselves). A level
    /// alone applies to these; libraries are logged only if named (`info,notify=debug`).
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

/// The format of log records.
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
    pub(super) fn run(self) -> Result<(), CommandError> {
        if self.check {
            hotmerge_sandbox::reset_signals();
            return self.run_check();
        }
        // Before anything else gets their numbers.
        let inherited = front::inherited()?;
        // Signals are unblocked only once none kills.
        let orders = Orders::take().context("failed to prepare signal handling");
        hotmerge_sandbox::reset_signals();
        self.run_host(orders?, inherited)
    }

    fn run_check(&self) -> Result<(), CommandError> {
        let config = self.configuration()?;
        let plugin_dir =
            Host::check(&config).map_err(|error| CommandError::new(exit::CONFIG, error))?;
        output::print(format_args!(
            "configuration and plugin directory `{}` can be used\n",
            plugin_dir.display()
        ));
        check_trust(&config)?;
        check(&config)
    }

    fn run_host(self, mut orders: Orders, inherited: Inherited) -> Result<(), CommandError> {
        give_back_large_blocks();
        let config = self.configuration()?;
        Host::check(&config).map_err(|error| CommandError::new(exit::CONFIG, error))?;
        let dir = RuntimeDir::chosen(config.runtime_dir.as_ref());
        let records = Records::new(Limits {
            records: config.log.records,
            bytes: config.log.bytes,
        });
        let format = self.log_format.into();
        let log = Log::start(format, &self.log, Some(&records), plan(&config))
            .map_err(|error| CommandError::new(exit::CONFIG, error))?;
        allow_more_files();
        let pid_file = lock(&dir)?;
        let names_state_dir = config.state_dir.is_some();
        let host = start(config.clone()).map_err(|error| CommandError::new(exit::CONFIG, error))?;
        let host = Arc::new(host);
        connect(&host, &log.router);
        let door = Door::new(Arc::clone(&host), Box::new(StopBySignal), records);
        let server = Server::open(&dir, Arc::clone(&door))?;
        let front = Arc::new(front::open(&config.http, inherited, door)?);
        self.reread_config_on_request(&host, names_state_dir);
        let reloads = Reloads::start(&host, &log.router).context("failed to start a thread")?;
        // Signals are handled before anyone can learn the pid.
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
                Order::Reload => reloads.order(),
                Order::Report => report(&host),
                Order::Stop => break,
                Order::ReportAndStop => {
                    report(&host);
                    break;
                }
            }
        }
        tracing::info!(target: "hotmerge::host", "stopping");
        reloads.stop();
        hurry_on_request(orders, &host);
        place.server.close();
        front::close((*front).as_ref());
        let left = host.stop();
        if left > 0 {
            let left = count(left as u64, "old version");
            tracing::warn!(target: "hotmerge::host", "{left} had not ended in time");
        } else {
            place.server.finish();
        }
        Ok(())
    }

    /// Reads the file again when a request or a signal asks for it. The command line still takes
    /// precedence, and a state directory that the host chose by itself stays.
    fn reread_config_on_request(mut self, host: &Arc<Host>, names_state_dir: bool) {
        // Reports name it to clients, whose working directory is another.
        if let Some(file) = &mut self.config {
            *file = std::path::absolute(&*file).unwrap_or_else(|_| file.clone());
        }
        let file = self.config.clone();
        let chosen = host.config().state_dir.clone();
        host.read_config_by(file, move || {
            let mut config = self.read()?;
            if config.state_dir.is_none() && !names_state_dir {
                config.state_dir.clone_from(&chosen);
            }
            Ok(config)
        });
    }

    fn configuration(&self) -> Result<Config, CommandError> {
        self.read()
            .map_err(|error| CommandError::new(exit::CONFIG, error))
    }

    fn read(&self) -> Result<Config, ConfigError> {
        let file = self.config.as_deref();
        let mut config = file.map_or_else(|| Ok(Config::default()), Config::read)?;
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
        check_sinks(&config)?;
        Ok(config)
    }
}

/// Connects host and log: the host shows the state of the log's sinks, and the log follows the host's configuration.
fn connect(host: &Host, router: &Arc<Router>) {
    let shown = Arc::clone(router);
    host.show_log_sinks(move || shown.status());
    let router = Arc::clone(router);
    host.at_every_configuration(move |config| router.apply(plan(config)));
}

/// Tries what a host with this configuration needs, and reports the result for each part.
fn check(config: &Config) -> Result<(), CommandError> {
    let (usable, verdict) = conclude(examine(config));
    output::print(usable);
    verdict
}

/// A line for each part that a host can use, and the failure if there is one that it cannot.
fn conclude(findings: Vec<Finding>) -> (String, Result<(), CommandError>) {
    let (bad, usable): (Vec<_>, Vec<_>) = findings
        .into_iter()
        .partition(|it| it.verdict == Verdict::Bad);
    let mut lines = String::new();
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
        lines += &format!("{warning}{part}: {text}\n");
    }
    if bad.is_empty() {
        return (lines, Ok(()));
    }
    let reasons = bad.iter().map(|it| format!("{}: {}", it.part, it.text));
    let reasons = reasons.collect::<Vec<_>>().join("\n");
    (lines, Err(CommandError::text(exit::CONFIG, reasons)))
}

/// Checks that granted paths can be trusted, and that required signatures can be verified.
fn check_trust(config: &Config) -> Result<(), CommandError> {
    let refused = Host::check_grants(config);
    let keys = Host::check_keys(config);
    let reasons: Vec<_> = refused.err().into_iter().flatten().chain(keys).collect();
    match reasons.is_empty() {
        true => Ok(()),
        false => Err(CommandError::text(exit::CONFIG, reasons.join("; "))),
    }
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

/// Uses the default state directory if that is possible; only a configured one must work.
fn start(config: Config) -> Result<Host, StartError> {
    let Some(default) = Config::default_state_dir().filter(|_| config.state_dir.is_none()) else {
        return Host::start(config);
    };
    let mut with_state = config.clone();
    with_state.state_dir = Some(default);
    match Host::start(with_state) {
        Err(StartError::State(error)) => {
            tracing::warn!(target: "hotmerge::host", "no versions are kept for a rollback: {error}; pass `--state-dir`");
            Host::start(config)
        }
        other => other,
    }
}

fn lock(dir: &RuntimeDir) -> Result<PidFile, CommandError> {
    dir.create()?;
    PidFile::acquire(dir).map_err(|error| {
        let code = match error {
            RuntimeError::Held { .. } => exit::OTHER_HOST,
            RuntimeError::Denied { .. } => exit::DENIED,
            _ => exit::FAILURE,
        };
        CommandError::new(code, error)
    })
}

/// Reports that the host is ready once the first pass over the plugins is done. Signals are
/// handled before that.
fn announce_ready(host: &Arc<Host>, front: &Arc<Option<Front>>) -> Result<(), CommandError> {
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

/// A second order to stop means: do not wait for running calls.
fn hurry_on_request(mut orders: Orders, host: &Arc<Host>) {
    let host = Arc::downgrade(host);
    let watch = move || {
        while !matches!(orders.next(), Order::Stop | Order::ReportAndStop) {}
        if let Some(host) = host.upgrade() {
            tracing::warn!(target: "hotmerge::host", "received a second order to stop: no longer waiting for running calls");
            host.hurry();
        }
    };
    if let Err(error) = thread::Builder::new().name("hurry".into()).spawn(watch) {
        tracing::warn!(target: "hotmerge::host", "a second stop signal cannot shorten the shutdown: {error}");
    }
}

/// Logs what runs, one record per plugin.
fn report(host: &Host) {
    let status = host.status();
    let (rescans, watch) = (status.host.rescans, &status.host.watch);
    let config = &status.host.config;
    let refused = config.refused.as_ref().map(|refused| &*refused.reason);
    let waiting: Vec<_> = config.needs_restart.iter().map(|it| &*it.key).collect();
    tracing::info!(target: "hotmerge::host",
        plugins = status.plugins.len(),
        problems = status.problems.len(),
        rescans,
        %watch,
        config_since = config.since,
        config_refused = refused,
        config_needs_restart = waiting.join(", "),
        "report"
    );
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

/// A request to stop is handled like a signal to stop.
#[derive(Debug)]
struct StopBySignal;

impl AskToStop for StopBySignal {
    fn stop(&self) {
        if let Err(error) = kill_process(getpid(), Signal::TERM) {
            tracing::error!(target: "hotmerge::host", "failed to stop on request: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_has_one_line_per_part() {
        let finding = |part, verdict, text: &str| Finding {
            part,
            verdict,
            text: text.into(),
        };
        let findings = vec![
            finding("memory for plugins", Verdict::Good, "can be sealed and run"),
            finding(
                "sandbox",
                Verdict::Bad,
                "plugins must run in worker processes",
            ),
            finding(
                "state directory",
                Verdict::Bad,
                "`/state` belongs to others",
            ),
            finding("open files", Verdict::Less, "the limit is 256: raise it"),
        ];
        let (lines, verdict) = conclude(findings);
        let failure = verdict.expect_err("two parts cannot be used");
        let end = format!("{}[exit code {}]\n", failure.report(), failure.code());
        insta::assert_snapshot!(lines + &end);
    }
}
