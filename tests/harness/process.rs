//! Child processes that end when their test does, and runs that cannot take for ever.

use std::{
    io::Read,
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde_json::Value;

use crate::SOON;

/// A child of this test; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
}

impl Process {
    /// Starts a child.
    ///
    /// # Panics
    /// If the program cannot be run.
    pub fn spawn(command: &mut Command) -> Self {
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("failed to run {command:?}: {error}"));
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .expect("a child that was not waited for has a descriptor");
        Self { child, pidfd }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal to this very child.
    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pidfd, signal).expect("the child takes signals");
    }

    /// Waits for the end; `None` if it does not come in time.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        is_ready(&self.pidfd, limit).then(|| self.child.wait().expect("the child has ended"))
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        !is_ready(&self.pidfd, Duration::ZERO)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies the environment settings of one command to another.
pub fn copy_environment(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
}

/// Waits until a descriptor can be read; `false` if it cannot in time.
///
/// # Panics
/// If the system cannot wait for it.
pub fn is_ready(fd: &impl std::os::fd::AsFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).expect("limits are short");
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(error) => panic!("failed to wait: {error}"),
        }
    }
}

/// Copies a program that is to be run. Another process does it: whatever this one has open for
/// writing, a child that another test is just starting holds as well, and nobody may run it then.
///
/// # Panics
/// If it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    run(Command::new("cp").arg("--").arg(from).arg(to), SOON).ok();
}

/// The output of a command and how it ended.
#[derive(Debug)]
pub struct Ran {
    what: String,
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs a command to its end.
///
/// # Panics
/// If it does not end in time.
pub fn run(command: &mut Command, limit: Duration) -> Ran {
    let what = format!("{command:?}");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Process::spawn(command);
    let out = process.child.stdout.take().expect("it is a pipe");
    let err = process.child.stderr.take().expect("it is a pipe");
    let (out, err) = (thread::spawn(|| read(out)), thread::spawn(|| read(err)));
    let Some(status) = process.wait(limit) else {
        panic!("{what} has not ended after {limit:?}");
    };
    let stderr = err.join().expect("reading does not panic");
    Ran {
        what,
        code: status.code(),
        stdout: out.join().expect("reading does not panic"),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

fn read(mut pipe: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).expect("pipes can be read");
    bytes
}

impl Ran {
    /// Insists that it succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.ended_with(0)
    }

    /// Insists on an exit code.
    #[track_caller]
    pub fn ended_with(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{}\n{}{}",
            self.what,
            self.text(),
            self.stderr
        );
        self
    }

    /// Asserts that it wrote one sentence with all these words to standard error.
    #[track_caller]
    pub fn said(self, words: &[&str]) -> Self {
        let said = self.stderr.trim_end();
        let last = said.lines().last().unwrap_or_default();
        for word in words {
            assert!(last.contains(word), "no `{word}` in: {said}");
        }
        self
    }

    /// Its standard output, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The one JSON object that it wrote.
    #[track_caller]
    pub fn json(&self) -> Value {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "not one line: {}", self.text());
        lines.remove(0)
    }

    /// The JSON objects that it wrote, one per line.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        text.lines().map(parse).collect()
    }
}
