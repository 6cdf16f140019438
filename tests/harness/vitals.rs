//! Resources that attacks on a host could leak.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{SOON, TestHost};

/// More private memory than this, in KiB, is a leak and not a matter of where things lie.
const SLACK_KIB: u64 = 4 << 10;

/// The resources that a host holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Descriptors.
    pub descriptors: usize,
    /// Processes that it started and has not waited for.
    pub children: usize,
    /// Threads.
    pub threads: usize,
    /// Private memory in KiB.
    pub private_kib: u64,
}

impl Vitals {
    /// Of a host that lives.
    ///
    /// # Panics
    /// If it does not.
    pub fn of(host: &TestHost) -> Self {
        let proc = |name: &str| format!("/proc/{}/{name}", host.pid());
        let count = |name: &str| fs::read_dir(proc(name)).expect("the host lives").count();
        let status = fs::read_to_string(proc("status")).expect("the host lives");
        let private = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let private = private.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
        Self {
            descriptors: count("fd"),
            children: children(host).len(),
            threads: count("task"),
            private_kib: private.expect("the kernel tells"),
        }
    }

    /// How much memory a host held at the most, in KiB, shared memory and files included.
    ///
    /// # Panics
    /// If it does not live.
    pub fn most_kib(host: &TestHost) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", host.pid()));
        let status = status.expect("the host lives");
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let most = most.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
        most.expect("the kernel tells")
    }

    /// Waits until the host holds no more than at this moment.
    ///
    /// # Panics
    /// If something is left behind.
    #[track_caller]
    pub fn regained(&self, host: &TestHost, after: &str) {
        let deadline = Instant::now() + SOON;
        loop {
            let now = Self::of(host);
            let is_like_before = now.descriptors <= self.descriptors
                && now.children <= self.children
                && now.threads <= self.threads
                && now.private_kib <= self.private_kib + SLACK_KIB;
            if is_like_before {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "left behind after {after}: {now:?}, and before it {self:?}"
            );
            // A round trip, so that this is not a busy wait on a machine with one processor.
            host.status();
        }
    }
}

/// How long a host is watched that should do nothing.
const WATCH: Duration = Duration::from_millis(500);

impl TestHost {
    /// Watches it while it gets no requests.
    ///
    /// # Panics
    /// If it is busy anyway, every time it is checked.
    #[track_caller]
    pub fn idles(&self) {
        let deadline = Instant::now() + SOON;
        loop {
            let before = cpu(self.pid());
            // This measures time; it does not wait for an event.
            thread::park_timeout(WATCH);
            let used = cpu(self.pid()) - before;
            if used <= WATCH / 10 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "it has used {used:?} of {WATCH:?} though it has nothing to do"
            );
        }
    }
}

/// The processor time that a process has used, in whole ticks.
///
/// # Panics
/// If there is no such process.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, fields) = stat.rsplit_once(')').expect("the kernel tells");
    let fields = fields.split_ascii_whitespace().skip(11).take(2);
    let ticks: u64 = fields
        .map(|ticks| ticks.parse::<u64>().expect("the kernel tells"))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// The processes that a host started and has not waited for.
///
/// # Panics
/// If it does not live.
pub fn children(host: &TestHost) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", host.pid())).expect("the host lives");
    let lists = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}
