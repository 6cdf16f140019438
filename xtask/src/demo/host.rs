//! The host of the demonstration: a child process that ends with it.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use hotmerge_meta::{
    RuntimeDir,
    control::{CallParams, CallReply, Client, method},
};
use serde::Deserialize;

use super::Running;
use crate::cargo::Cargo;

/// Longest wait for a host's answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Builds `hotmerge` and, next to it, its worker program, and returns the path of `hotmerge`.
pub(super) fn build(cargo: &Cargo) -> Result<PathBuf> {
    let output = cargo
        .command()
        .args([
            "build",
            "--package",
            "hotmerge-program",
            "--bin",
            "hotmerge",
        ])
        .args(["--package", "hotmerge-worker", "--bin", "hotmerge-worker"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the host failed to build");
    cargo_metadata::Message::parse_stream(&output.stdout[..])
        .filter_map(|message| match message {
            Ok(cargo_metadata::Message::CompilerArtifact(artifact)) => artifact.executable,
            _ => None,
        })
        .map(PathBuf::from)
        .find(|path| path.ends_with("hotmerge"))
        .context("cargo did not report the path of the host")
}

/// A running host; ended when dropped.
pub(super) struct DemoHost {
    child: Child,
    program: PathBuf,
}

impl DemoHost {
    /// Starts the host and waits until it is ready.
    pub(super) fn start(
        program: &Path,
        staging: &Path,
        runtime: &RuntimeDir,
        state: &Path,
    ) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["serve", "--plugin-dir"])
            .arg(staging)
            .arg("--runtime-dir")
            .arg(runtime.path())
            .arg("--state-dir")
            .arg(state)
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start the host")?;
        let log = child.stderr.take().context("the host has no log")?;
        let host = Self {
            child,
            program: program.to_owned(),
        };
        let mut lines = BufReader::new(log).lines();
        loop {
            match lines.next() {
                Some(line) => {
                    if line
                        .context("failed to read the host's log")?
                        .contains("ready")
                    {
                        break;
                    }
                }
                None => bail!("the host ended before it was ready"),
            }
        }
        // A host whose log nobody reads would have to drop it.
        thread::spawn(move || lines.for_each(drop));
        Ok(host)
    }

    pub(super) fn show_status(&self, runtime: &RuntimeDir) -> Result<()> {
        let status = Command::new(&self.program)
            .args(["status", "--runtime-dir"])
            .arg(runtime.path())
            .status()?;
        ensure!(status.success(), "the host did not report its status");
        Ok(())
    }

    /// Stops the host and waits for its end.
    pub(super) fn stop(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").arg(&pid).status()?;
        ensure!(asked.success(), "failed to stop the host");
        let status = self.child.wait()?;
        ensure!(status.success(), "the host failed at its end: {status}");
        Ok(())
    }
}

impl Drop for DemoHost {
    fn drop(&mut self) {
        // Only matters if something failed: a host that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls a plugin once, on a connection of its own.
pub(super) fn call(
    runtime: &RuntimeDir,
    plugin: &str,
    name: &str,
    input: &[u8],
) -> Result<Vec<u8>> {
    let mut client = Client::connect(runtime)?;
    call_on(&mut client, plugin, name, input)
}

/// Calls a plugin once.
pub(super) fn call_on(
    client: &mut Client,
    plugin: &str,
    name: &str,
    input: &[u8],
) -> Result<Vec<u8>> {
    let params = CallParams {
        plugin: plugin.parse()?,
        method: name.to_owned(),
        input_base64: input.to_vec().into(),
        deadline_ms: None,
        trace: None,
        content_type: String::new(),
        accept: String::new(),
    };
    let reply: CallReply = client.request(method::CALL, &params, PATIENCE)?;
    Ok(reply.output_base64.0)
}

/// Which version of each plugin runs.
pub(super) fn generations(runtime: &RuntimeDir) -> Result<Vec<Running>> {
    #[derive(Deserialize)]
    struct Status {
        plugins: Vec<Running>,
    }
    let mut client = Client::connect(runtime)?;
    let status: Status = client.request(method::STATUS, &(), PATIENCE)?;
    Ok(status.plugins)
}
