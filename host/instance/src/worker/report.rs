//! How a worker ended, as text for operators.

use std::{fmt, os::unix::process::ExitStatusExt as _, time::Duration};

use hotmerge_abi::CallContext;
use hotmerge_sandbox::{Ended, Limits, message::report};
use hotmerge_wire::{Caller, op};
use signal_hook::{
    consts::{SIGABRT, SIGILL, SIGKILL, SIGSEGV, SIGSYS, SIGTRAP},
    low_level::signal_name,
};

use crate::{failure::Failure, worker::exchange::doing};

/// What a worker reported before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// A panic was caught.
    Panic(Failure),
    /// A signal is about to kill it.
    Signal(Hit),
    /// A signal was about to kill it, and the request that it came in went on to its end.
    Survived(Hit),
    /// Text of the probe.
    Text(String),
    /// Nothing that a worker program writes; a plugin may.
    Garbage,
}

/// A signal that was to kill a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    signal: i32,
    overflow: bool,
    /// For which the kernel raised it; none if somebody sent it.
    address: Option<u64>,
    slot: Option<u32>,
    /// The operation it came in; 0 for none.
    op: u32,
    /// The call it came in, without what happened.
    call: Failure,
}

impl Hit {
    /// With the call that the worker named by its slot. Later it may be another call's.
    pub(super) fn resolve(mut self, caller: &Caller) -> Self {
        if matches!(self.op, op::CALL | op::CALL_MEDIA)
            && let Some(requested) = self.slot.and_then(|slot| caller.describe(slot))
            && !requested.method.is_empty()
        {
            self.call = self.call.in_call(&requested.method, &requested.context);
        }
        self
    }

    /// Whether the kernel says that a worker ended of it. The first process of a namespace does not
    /// end of the signal that it sends itself to abort: the C library has an instruction for that,
    /// which ends in another signal.
    pub(super) fn explains(&self, ended: &Ended) -> bool {
        let signal = ended.status.signal();
        let by_instruction = [SIGSEGV, SIGILL, SIGTRAP];
        signal == Some(self.signal)
            || self.signal == SIGABRT && signal.is_some_and(|it| by_instruction.contains(&it))
    }

    /// That it killed the worker.
    pub(super) fn killed(&self) -> Failure {
        self.told(match (self.signal, self.overflow) {
            (_, true) => "overflowed its stack".to_owned(),
            (SIGABRT, _) => "aborted".to_owned(),
            _ => format!("was killed by {self}"),
        })
    }

    /// That the worker was ended because it did not.
    pub(super) fn outlived(&self) -> Failure {
        self.told(match (self.signal, self.overflow) {
            (_, true) => "was ended after it overflowed its stack".to_owned(),
            (SIGABRT, _) => "was ended after it aborted".to_owned(),
            _ => format!("was ended after it survived {self}"),
        })
    }

    /// That the worker ended of something else after it.
    pub(super) fn before(&self, end: &str) -> Failure {
        let hit = self.told(self.to_string());
        Failure::from(format!("{end}, after it had survived {hit}"))
    }

    fn told(&self, what: String) -> Failure {
        let failure = Failure {
            what,
            ..self.call.clone()
        };
        failure.or_during(doing(self.op).map(str::to_owned))
    }
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{} at {address:#x}", name(self.signal)),
            None => f.write_str(&name(self.signal)),
        }
    }
}

impl Report {
    /// Reads one message.
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self::parse(bytes).unwrap_or(Self::Garbage)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        if *kind == report::TEXT {
            return Some(Self::Text(String::from_utf8_lossy(rest).into_owned()));
        }
        let (bytes, text) = bytes.split_first_chunk::<{ report::HEAD_BYTES }>()?;
        let address = u64::from_ne_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(|at| bytes[at]));
        let hit = Hit {
            signal: bytes[1].into(),
            overflow: *kind == report::STACK,
            address: (bytes[4] == 0).then_some(address),
            slot: None,
            op: bytes[3].into(),
            call: Failure::default(),
        };
        match *kind {
            report::PANIC => {
                let (call, text) = call(bytes[1].into(), text)?;
                let step = doing(bytes[3].into()).map(str::to_owned);
                Some(Self::Panic(panic(call, text).or_during(step)))
            }
            report::SIGNAL | report::STACK if text.is_empty() => Some(Self::Signal(Hit {
                slot: u32::from(bytes[2]).checked_sub(1),
                ..hit
            })),
            report::SURVIVED => {
                let (call, rest) = call(bytes[2].into(), text)?;
                rest.is_empty()
                    .then_some(Self::Survived(Hit { call, ..hit }))
            }
            _ => None,
        }
    }
}

/// The call that a report names, by its trace and its method, and what follows.
fn call(method: usize, bytes: &[u8]) -> Option<(Failure, &[u8])> {
    let (trace_id, bytes) = bytes.split_first_chunk::<16>()?;
    let (method, rest) = bytes.split_at_checked(method)?;
    let context = CallContext {
        trace_id: *trace_id,
        ..CallContext::default()
    };
    let call = match method {
        [] => Failure::default(),
        method => Failure::default().in_call(&String::from_utf8_lossy(method), &context),
    };
    Some((call, rest))
}

/// A panic: the call, and what the plugin says.
fn panic(call: Failure, text: &[u8]) -> Failure {
    let failure = match text {
        [] => Failure::from("panicked"),
        text => Failure::panic(&String::from_utf8_lossy(text)),
    };
    Failure {
        method: call.method,
        trace: call.trace,
        ..failure
    }
}

/// The kernel's account of an end.
pub(super) fn ended(ended: &Ended, limits: &Limits) -> String {
    if let Some(code) = ended.status.code() {
        return format!("exited with status {code} without being asked to");
    }
    match ended.status.signal() {
        Some(SIGSYS) => {
            "was killed by SIGSYS: it made a system call that is never allowed".to_owned()
        }
        Some(SIGKILL) if has_used_up(ended.cpu, limits) => {
            let limit = limits.cpu_s;
            format!("used up the {limit} s of processor time that `limits.cpu_s` gives it")
        }
        Some(signal) => format!("was killed by {}", name(signal)),
        None => "ended".to_owned(),
    }
}

/// Whether it was for the limit on processor time that the kernel killed a worker. The kernel
/// judges by sampled ticks, some hundred a second, and reports what was measured: on a busy machine
/// a limit of one second is off by a fifth and more.
fn has_used_up(cpu: Duration, limits: &Limits) -> bool {
    limits.cpu_s > 0 && cpu >= Duration::from_secs(limits.cpu_s).mul_f64(0.6)
}

fn name(signal: i32) -> String {
    signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use signal_hook::consts::SIGXCPU;

    use super::*;

    #[test]
    fn reports_of_any_length_are_read_or_refused() {
        let mut signal = [0; 16];
        signal[..4].copy_from_slice(&[3, 11, 2, 1]);
        let report = Report::parse(&signal);
        let expected = Hit {
            signal: 11,
            overflow: true,
            address: Some(0),
            slot: Some(1),
            op: op::CALL,
            call: Failure::default(),
        };
        assert_eq!(report, Some(Report::Signal(expected)));
        for len in 0..40 {
            for kind in 0..=255 {
                let _ = Report::parse(&vec![kind; len]);
            }
        }
        assert_eq!(Report::parse(&[1; 15]), None);
        let mut panic = vec![0_u8; 16];
        panic[0] = 1;
        panic[1] = 2;
        panic.extend([0xab; 16]);
        panic.extend(b"gopanicked at x\nstack: 10");
        let Some(Report::Panic(failure)) = Report::parse(&panic) else {
            panic!("it is one");
        };
        let trace = "ab".repeat(16);
        assert_eq!(
            failure.to_string(),
            format!("panicked at x in `go` (trace {trace})")
        );
        assert_eq!(failure.frames, [0x10]);
    }

    #[test]
    fn a_signal_explains_only_its_own_end() {
        let hit = |signal: i32| Hit {
            signal,
            overflow: false,
            address: Some(0x10),
            slot: None,
            op: op::CALL,
            call: Failure::default().in_call("m", &CallContext::default()),
        };
        let ended = |status: i32| Ended {
            status: ExitStatus::from_raw(status),
            cpu: Duration::ZERO,
        };
        let exited = 3 << 8;
        for (signal, status, explains) in [
            (SIGTRAP, SIGTRAP, true),
            (SIGTRAP, exited, false),
            (SIGTRAP, SIGKILL, false),
            (SIGTRAP, SIGSEGV, false),
            (SIGABRT, SIGABRT, true),
            (SIGABRT, SIGSEGV, true),
            (SIGABRT, exited, false),
        ] {
            assert_eq!(
                hit(signal).explains(&ended(status)),
                explains,
                "{signal} {status}"
            );
        }
        let told = hit(SIGTRAP).before("exited with status 3").to_string();
        assert_eq!(
            told,
            "exited with status 3, after it had survived SIGTRAP at 0x10 in `m`"
        );
        let told = hit(SIGTRAP).outlived().to_string();
        assert_eq!(told, "was ended after it survived SIGTRAP at 0x10 in `m`");
    }

    #[test]
    fn a_signal_outside_of_calls_names_the_step() {
        for (op, step) in [
            (op::CONSTRUCT, "while its constructors ran"),
            (op::START, "while it started"),
            (op::SELF_CHECK, "while it checked itself"),
            (op::SAVE, "while it saved its state"),
            (op::RESTORE, "while it restored a state"),
            (op::TEARDOWN, "while it was torn down"),
        ] {
            let mut signal = [0; 16];
            signal[..4].copy_from_slice(&[report::SIGNAL, 11, 1, op as u8]);
            signal[8] = 8;
            let Some(Report::Signal(hit)) = Report::parse(&signal) else {
                panic!("it is one");
            };
            let told = hit.killed().to_string();
            assert_eq!(told, format!("was killed by SIGSEGV at 0x8, {step}"));
        }
    }

    #[test]
    fn a_signal_that_was_sent_has_no_address() {
        let mut signal = [0; 16];
        signal[..5].copy_from_slice(&[report::SIGNAL, 11, 0, 0, 1]);
        let Some(Report::Signal(hit)) = Report::parse(&signal) else {
            panic!("it is one");
        };
        assert_eq!(hit.killed().to_string(), "was killed by SIGSEGV");
    }

    #[test]
    fn only_killed_processes_have_exceeded_their_processor_time() {
        let described = |status, cpu_ms, cpu_s| {
            let status = ExitStatus::from_raw(status);
            let cpu = Duration::from_millis(cpu_ms);
            let limits = Limits {
                cpu_s,
                ..Limits::default()
            };
            ended(&Ended { status, cpu }, &limits)
        };
        let used_up = "used up the 2 s of processor time that `limits.cpu_s` gives it";
        assert_eq!(described(SIGKILL, 1_990, 2), used_up);
        assert_eq!(described(SIGKILL, 1_400, 2), used_up);
        assert_eq!(described(SIGKILL, 1_000, 2), "was killed by SIGKILL");
        assert_eq!(described(SIGKILL, 9_000, 0), "was killed by SIGKILL");
        // A signal that a plugin can send to itself proves nothing about the limit.
        assert_eq!(described(SIGXCPU, 2_000, 2), "was killed by SIGXCPU");
        let exited = described(7 << 8, 2_000, 2);
        assert_eq!(exited, "exited with status 7 without being asked to");
    }
}
