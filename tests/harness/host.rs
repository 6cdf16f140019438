//! A running host.

use std::{
    process::{Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::Instant,
};

use hotmerge_daemon::status::{PluginStatus, Status};
use hotmerge_meta::{
    RuntimeDir,
    control::{
        CallParams, CallReply, Client, ClientError, Problem, ReloadParams, ReloadReport, method,
    },
};
use rustix::process::Signal;

use crate::{Log, Process, SOON};

/// A real `hotmerge serve`, ended with its test. Shows its log if the test fails.
#[derive(Debug)]
pub struct TestHost {
    process: Process,
    log: Log,
    dir: RuntimeDir,
}

impl TestHost {
    /// Starts a host and waits until it says that it is ready.
    ///
    /// # Panics
    /// If it is not ready in time.
    #[track_caller]
    pub fn start(command: Command, dir: RuntimeDir) -> Self {
        let host = Self::spawn(command, dir);
        host.log.wait("ready");
        host
    }

    /// Starts a host and does not wait for anything.
    #[track_caller]
    pub fn spawn(mut command: Command, dir: RuntimeDir) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::spawn(&mut command);
        let log = Log::read(process.child().stderr.take().expect("it is a pipe"));
        Self { process, log, dir }
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A new connection.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.dir).expect("the host answers")
    }

    /// Its status.
    #[track_caller]
    pub fn status(&self) -> Status {
        let status = self.client().request(method::STATUS, &(), SOON);
        status.expect("the host says what it runs")
    }

    /// Its status of one plugin.
    #[track_caller]
    pub fn plugin(&self, name: &str) -> PluginStatus {
        let status = self.status();
        let found = status.plugins.iter().find(|plugin| plugin.name == name);
        let found = found.unwrap_or_else(|| panic!("no plugin `{name}` in {status:#?}"));
        found.clone()
    }

    /// The problem of one package, or of the plugin directory (an empty name).
    #[track_caller]
    pub fn problem(&self, package: &str) -> Problem {
        let problems = self.status().problems;
        let found = problems.iter().find(|problem| problem.package == package);
        let found = found.unwrap_or_else(|| panic!("no problem with `{package}`: {problems:#?}"));
        found.clone()
    }

    /// Asks until the answer is the wanted one. Each question is a round trip, and no state
    /// that lasts is missed.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, wanted: impl Fn(&Status) -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        let mut client = self.client();
        loop {
            let status: Status = client
                .request(method::STATUS, &(), SOON)
                .expect("the host says what it runs");
            if let Some(found) = wanted(&status) {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "never happened: {what}: {status:#?}"
            );
        }
    }

    /// Waits until it takes connections again after it had too many.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn wait_for_answers(&self) {
        let deadline = Instant::now() + SOON;
        while let Err(error) = self.client().request::<u64>(method::POSITION, &(), SOON) {
            assert!(
                Instant::now() < deadline,
                "the host answers nobody: {error}"
            );
        }
    }

    /// Makes it scan, and waits for everything that follows. What the host's own clock saw before
    /// this is not in the report: see [`TestHost::reload_after`].
    #[track_caller]
    pub fn reload(&self) -> ReloadReport {
        self.reload_with(&ReloadParams::default())
    }

    /// As [`TestHost::reload`], with parameters.
    #[track_caller]
    pub fn reload_with(&self, params: &ReloadParams) -> ReloadReport {
        let report = self.client().request(method::RELOAD, params, SOON);
        report.expect("the host says what it did")
    }

    /// Makes it scan what `change` changes, and waits for everything that follows. The report
    /// reports everything since before the change, also if the host's own clock was faster than
    /// the request.
    #[track_caller]
    pub fn reload_after(&self, change: impl FnOnce()) -> ReloadReport {
        reload_after(&mut self.client(), change)
    }

    /// Does something with a connection of its own, on a thread of its own.
    #[track_caller]
    pub fn in_background<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Client) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let mut client = self.client();
        thread::spawn(move || ask(&mut client))
    }

    /// Calls a plugin over a connection of its own.
    pub fn call(&self, plugin: &str, name: &str, input: &[u8]) -> Result<CallReply, ClientError> {
        call(&mut self.client(), plugin, name, input)
    }

    /// How often the fixture `actor` was asked for this, by its own count.
    #[track_caller]
    pub fn count(&self, plugin: &str) -> u64 {
        let reply = self.call(plugin, "count", b"").expect("it counts");
        let bytes = reply.output_base64.0.try_into();
        u64::from_le_bytes(bytes.expect("it answers with a number"))
    }

    /// The text that a plugin answers with.
    #[track_caller]
    pub fn text(&self, plugin: &str, name: &str) -> String {
        let reply = self.call(plugin, name, b"").expect("the plugin answers");
        String::from_utf8(reply.output_base64.0).expect("it answers with text")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let status = self.process.wait(SOON);
        status.unwrap_or_else(|| panic!("the host has not ended\n{}", self.log))
    }

    /// Ends it as service managers do, and insists that it ends well. Its log is whole then.
    #[track_caller]
    pub fn stop(mut self) -> Log {
        self.signal(Signal::TERM);
        let status = self.ended();
        self.log.wait_end();
        assert!(
            status.success(),
            "the host ended with {status}\n{}",
            self.log
        );
        self.log.clone()
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log);
        }
    }
}

/// As [`TestHost::reload_after`], over a connection.
///
/// # Panics
/// If the host does not say what it did.
#[track_caller]
pub fn reload_after(client: &mut Client, change: impl FnOnce()) -> ReloadReport {
    let since = position(client);
    change();
    reload_since(client, since)
}

/// Where the host's history has come to.
#[track_caller]
pub(crate) fn position(client: &mut Client) -> u64 {
    let position = client.request(method::POSITION, &(), SOON);
    position.expect("the host answers")
}

/// Makes the host scan, and waits until it has reported everything since then.
#[track_caller]
pub(crate) fn reload_since(client: &mut Client, position: u64) -> ReloadReport {
    let params = ReloadParams {
        since: Some(position),
        ..ReloadParams::default()
    };
    let report = client.request(method::RELOAD, &params, SOON);
    report.expect("the host says what it did")
}

/// A call without a deadline or a trace.
///
/// # Panics
/// If the plugin's name is none.
pub fn call_params(plugin: &str, name: &str, input: &[u8]) -> CallParams {
    CallParams {
        plugin: plugin.parse().expect("tests use good names"),
        method: name.to_owned(),
        input_base64: input.to_vec().into(),
        deadline_ms: None,
        trace: None,
        content_type: String::new(),
        accept: String::new(),
    }
}

/// Calls a plugin over a connection.
pub fn call(
    client: &mut Client,
    plugin: &str,
    name: &str,
    input: &[u8],
) -> Result<CallReply, ClientError> {
    client.request(method::CALL, &call_params(plugin, name, input), SOON)
}
