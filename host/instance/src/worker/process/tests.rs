//! What is seen of a process: a real child, whose pipes the test writes to.

use std::{
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use hotmerge_sandbox::message::{length, record, report};
use hotmerge_wire::{Caller, Geometry};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::*;
use crate::worker::fixtures::{Host, LONG, pipe};

/// A shell that ends as soon as its input does, and the worker's ends of its pipes.
struct Stand {
    process: Process,
    child: Child,
    input: Option<ChildStdin>,
    crash: Option<OwnedFd>,
    log: OwnedFd,
    wake: OwnedFd,
    plugin_log: PluginLog,
    host: Arc<Host>,
}

/// A process, and its ends of two pipes.
struct Ends {
    process: Process,
    crash: OwnedFd,
    log: OwnedFd,
}

fn shell(script: &str) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).stdin(Stdio::piped());
    shell.spawn().unwrap()
}

fn ends(child: &Child) -> Ends {
    signal_hook::flag::register(MEMORY_TICK, Arc::default()).unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    let (caller, _) = Caller::create(Geometry::default()).unwrap();
    let ((crash, crash_in), (log, log_in)) = (pipe(), pipe());
    let link = Link::new(caller, None, "one", pid, crash, event().unwrap());
    let pipes = Pipes {
        log,
        out: pipe().0,
        err: pipe().0,
    };
    Ends {
        process: Process::new(link, pidfd, pipes, Limits::default(), None),
        crash: crash_in,
        log: log_in,
    }
}

/// A process that runs a shell script, for tests of what watches it.
pub(in crate::worker) fn child(script: &str) -> Process {
    ends(&shell(script)).process
}

impl Stand {
    fn new() -> Self {
        let mut shell = shell("read _; exit 7");
        let Ends {
            process,
            crash,
            log,
        } = ends(&shell);
        let (host, _) = Host::alone();
        Self {
            process,
            input: shell.stdin.take(),
            child: shell,
            crash: Some(crash),
            log,
            wake: event().unwrap(),
            plugin_log: PluginLog::new("one".parse().unwrap(), Arc::clone(&host) as _),
            host,
        }
    }

    fn report(&self, message: &[u8]) {
        let crash = self.crash.as_ref().expect("it is open");
        send(crash, message);
    }

    /// The next thing that is seen of it.
    fn poll(&mut self) -> Observed {
        let mut processes = [&mut self.process];
        let (mut seen, _) = poll_all(&mut processes, &self.wake, &self.plugin_log, Some(LONG));
        seen.remove(0)
    }

    /// Waits until something of it is seen.
    fn poll_until(&mut self, is_seen: impl Fn(&Observed) -> bool) -> Observed {
        loop {
            let seen = self.poll();
            if is_seen(&seen) {
                return seen;
            }
        }
    }
}

fn send(pipe: &OwnedFd, message: &[u8]) {
    let bytes = [&length(message.len()), message].concat();
    assert_eq!(rustix::io::write(pipe, &bytes), Ok(bytes.len()));
}

/// The head of a report, without what follows it.
fn head(kind: u8, second: u8) -> Vec<u8> {
    let mut bytes = vec![kind, second];
    bytes.resize(report::HEAD_BYTES, 0);
    bytes
}

#[test]
fn a_closed_pipe_does_not_end_it() {
    let mut stand = Stand::new();
    stand.crash = None;
    let seen = stand.poll_until(|seen| seen.hung_up);
    assert_eq!(seen.ended, None);
    stand.input = None;
    let ended = stand.poll_until(|seen| seen.ended.is_some()).ended;
    assert_eq!(ended.and_then(|ended| ended.status.code()), Some(7));
}

#[test]
fn the_first_panic_and_signal_are_taken() {
    let mut stand = Stand::new();
    for (method, text) in [
        ("first", "panicked at a.rs"),
        ("second", "panicked at b.rs"),
    ] {
        let mut panic = head(report::PANIC, method.len() as u8);
        panic.extend([0; 16]);
        panic.extend([method, text].concat().into_bytes());
        stand.report(&panic);
    }
    stand.report(&head(report::SIGNAL, 11));
    let seen = stand.poll();
    let panic = seen.panic.expect("it was reported");
    assert_eq!(panic.to_string(), "panicked at a.rs in `first`");
    assert!(seen.was_hit);
    let hit = stand.process.hit.as_ref().expect("it was reported");
    assert_eq!(hit.to_string(), "SIGSEGV at 0x0");
    assert!(!seen.forged && !seen.hung_up && seen.ended.is_none());
}

#[test]
fn a_survived_signal_withdraws_its_report() {
    let mut stand = Stand::new();
    stand.report(&head(report::SIGNAL, 5));
    let mut survived = head(report::SURVIVED, 5);
    survived[2] = 4;
    survived.extend([0; 16]);
    survived.extend(b"trap");
    stand.report(&survived);
    assert!(stand.poll().was_hit);
    assert_eq!(stand.process.hit, None);
    let survived = stand.process.survived.as_ref().expect("it was reported");
    assert_eq!(
        survived.outlived().to_string(),
        "was ended after it survived SIGTRAP at 0x0 in `trap`"
    );
    stand.report(&head(report::SIGNAL, 11));
    assert!(stand.poll().was_hit);
    assert!(stand.process.hit.is_some(), "the next one counts");
}

#[test]
fn a_report_no_worker_writes_is_forged() {
    for forged in [&[report::TEXT, b'x'][..], &[99][..], &[report::SIGNAL][..]] {
        let mut stand = Stand::new();
        stand.report(forged);
        assert!(stand.poll().forged, "{forged:?}");
    }
}

#[test]
fn a_report_in_pieces_is_forged() {
    let mut stand = Stand::new();
    let crash = stand.crash.as_ref().expect("it is open");
    rustix::io::write(crash, &[100, 0, 1]).unwrap();
    assert!(stand.poll().forged);
}

#[test]
fn log_records_reach_the_host() {
    let mut stand = Stand::new();
    let mut message = vec![0; record::HEAD_BYTES];
    message.extend(b"it works");
    send(&stand.log, &message);
    stand.poll();
    assert_eq!(*stand.host.records.lock().unwrap(), ["it works"]);
}

#[test]
fn a_wake_up_ends_the_wait() {
    let mut stand = Stand::new();
    rustix::io::write(&stand.wake, &1_u64.to_ne_bytes()).unwrap();
    let mut processes = [&mut stand.process];
    let (_, woken) = poll_all(&mut processes, &stand.wake, &stand.plugin_log, Some(LONG));
    assert!(woken);
    let (_, woken) = poll_all(
        &mut processes,
        &stand.wake,
        &stand.plugin_log,
        Some(Duration::ZERO),
    );
    assert!(!woken, "a wake-up counts once");
}

#[test]
fn dropping_a_process_ends_it_and_its_calls() {
    let Stand {
        process,
        mut child,
        input,
        ..
    } = Stand::new();
    let link = Arc::clone(&process.link);
    drop(process);
    assert_eq!(link.end().as_deref(), Some("was ended"));
    assert!(link.caller.is_gone());
    child.wait().expect_err("there is nothing left to take");
    drop(input);
}
