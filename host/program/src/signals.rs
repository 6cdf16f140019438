//! The signals that a running host gets, and what each of them orders.
//!
//! Invariant: no signal whose default action would end the host does so, except those that
//! report a fault of the process itself. A signal without a meaning is logged and otherwise
//! ignored.
//!
//! Absent on purpose: any use of SIGUSR1, with which workers report crashes, and of SIGVTALRM, with which the
//! kernel has workers' memory checked.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::c_int,
    io,
    sync::Arc,
};

use signal_hook::{
    consts::{
        SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM,
        SIGXCPU, SIGXFSZ,
    },
    iterator::Signals,
    low_level::signal_name,
};

/// What a signal orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Read the configuration again and rescan the plugin directory.
    Reload,
    /// Log what runs.
    Report,
    /// End after the running calls; the second time, at once.
    Stop,
    /// Log what runs, then end after the running calls.
    ReportAndStop,
}

/// Signals whose default action ends a process and that have no meaning to a host.
const WITHOUT_MEANING: [c_int; 6] = [
    SIGALRM,
    SIGPROF,
    SIGIO,
    SIGXFSZ,
    libc::SIGPWR,
    libc::SIGSTKFLT,
];

/// Takes the signals of a host.
#[derive(Debug)]
pub(crate) struct Orders {
    signals: Signals,
    /// Those of one wait, of which only the first was given out.
    came: VecDeque<c_int>,
    ignored: BTreeMap<c_int, u64>,
}

impl Orders {
    /// From here on no signal kills. Those that were held back until here come now.
    pub(crate) fn take() -> io::Result<Self> {
        let meant = [SIGHUP, SIGUSR2, SIGTERM, SIGINT, SIGQUIT, SIGXCPU];
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        let all = meant.into_iter().chain(WITHOUT_MEANING).chain(real_time);
        // They need no thread to wake: one comes as often as workers use the processor, and the host takes the
        // other later, when it can have workers.
        for silent in [SIGVTALRM, SIGUSR1] {
            signal_hook::flag::register(silent, Arc::default())?;
        }
        Ok(Self {
            signals: Signals::new(all)?,
            came: VecDeque::new(),
            ignored: BTreeMap::new(),
        })
    }

    /// Waits for the next order.
    pub(crate) fn next(&mut self) -> Order {
        loop {
            while let Some(signal) = self.came.pop_front() {
                match signal {
                    SIGHUP => return Order::Reload,
                    SIGUSR2 => return Order::Report,
                    SIGTERM | SIGINT => return Order::Stop,
                    SIGQUIT => return Order::ReportAndStop,
                    SIGXCPU => {
                        tracing::warn!(target: "hotmerge::host", "the limit of processor time is used up (SIGXCPU)");
                        return Order::Stop;
                    }
                    other => {
                        let times = self.ignored.entry(other).or_default();
                        *times += 1;
                        // Many signals must not fill the log.
                        if times.is_power_of_two() {
                            let signal = name(other);
                            tracing::warn!(target: "hotmerge::host", signal, times, "ignored a signal that has no meaning for a host");
                        }
                    }
                }
            }
            self.came.extend(self.signals.wait());
        }
    }
}

fn name(signal: c_int) -> String {
    match signal_name(signal) {
        Some(name) => name.to_owned(),
        None if signal == libc::SIGPWR => "SIGPWR".to_owned(),
        None if signal == libc::SIGSTKFLT => "SIGSTKFLT".to_owned(),
        None => format!("SIGRTMIN+{}", signal - libc::SIGRTMIN()),
    }
}
