//! How a worker ended, in words for operators.

use std::{os::unix::process::ExitStatusExt as _, time::Duration};

use hotmerge_abi::CallContext;
use hotmerge_sandbox::{Ended, Limits, message::report};
use hotmerge_wire::Caller;
use signal_hook::{
    consts::{SIGABRT, SIGKILL, SIGSYS},
    low_level::signal_name,
};

use crate::failure::Failure;

/// What a worker reported before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// A panic was caught.
    Panic(Failure),
    /// A signal is about to kill it.
    Signal {
        signal: i32,
        overflow: bool,
        address: u64,
        slot: Option<u32>,
    },
    /// Text of the probe.
    Text(String),
    /// Nothing that a worker program writes; a plugin may.
    Garbage,
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
        let slot = u32::from(bytes[2]).checked_sub(1);
        let address = u64::from_ne_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(|at| bytes[at]));
        match *kind {
            report::PANIC => Some(Self::Panic(panic(bytes[1].into(), text)?)),
            report::SIGNAL | report::STACK if text.is_empty() => Some(Self::Signal {
                signal: bytes[1].into(),
                overflow: *kind == report::STACK,
                address,
                slot,
            }),
            _ => None,
        }
    }

    /// What happened, with the call it happened in.
    pub(super) fn describe(&self, caller: &Caller) -> Failure {
        let (failure, slot) = match self {
            Self::Panic(failure) => return failure.clone(),
            Self::Signal {
                signal,
                overflow,
                address,
                slot,
            } => {
                let what = match (*signal, overflow) {
                    (_, true) => "overflowed its stack".to_owned(),
                    (SIGABRT, _) => "aborted".to_owned(),
                    (signal, _) => format!("was killed by {} at {address:#x}", name(signal)),
                };
                (Failure::from(what), *slot)
            }
            Self::Text(text) => return Failure::from(text.as_str()),
            Self::Garbage => return Failure::from("said what makes no sense"),
        };
        match slot.and_then(|slot| caller.describe(slot)) {
            Some((method, context)) if !method.is_empty() => failure.during(&method, &context),
            _ => failure,
        }
    }
}

/// A panic: the trace, the method, and what the plugin says.
fn panic(method: usize, bytes: &[u8]) -> Option<Failure> {
    let (trace_id, bytes) = bytes.split_first_chunk::<16>()?;
    let (method, text) = bytes.split_at_checked(method)?;
    let failure = match text {
        [] => Failure::from("panicked"),
        text => Failure::panic(&String::from_utf8_lossy(text)),
    };
    let context = CallContext {
        trace_id: *trace_id,
        ..CallContext::default()
    };
    Some(match method {
        [] => failure,
        method => failure.during(&String::from_utf8_lossy(method), &context),
    })
}

/// What the kernel says of an end.
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
/// judges by sampled ticks, some hundred a second, and tells what was measured: on a busy machine
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
        signal[..3].copy_from_slice(&[3, 11, 2]);
        let report = Report::parse(&signal);
        let slot = Some(1);
        let overflow = true;
        let expected = Report::Signal {
            signal: 11,
            overflow,
            address: 0,
            slot,
        };
        assert_eq!(report, Some(expected));
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
    fn only_a_killed_process_can_exceed_its_processor_time() {
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
        // What a plugin can send to itself says nothing of the limit.
        assert_eq!(described(SIGXCPU, 2_000, 2), "was killed by SIGXCPU");
        let exited = described(7 << 8, 2_000, 2);
        assert_eq!(exited, "exited with status 7 without being asked to");
    }
}
