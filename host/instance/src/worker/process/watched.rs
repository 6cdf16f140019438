//! Checks a worker's memory while the worker runs.

use std::{
    io,
    time::{Duration, Instant},
};

use hotmerge_sandbox::{CpuTimer, private_bytes};
use signal_hook::consts::SIGVTALRM;

/// What a worker needs beside its plugin's memory: its own, and what its loader has written to.
const OWN_BYTES: u64 = 16 << 20;

/// A worker's memory is checked after this much of its processor time, and not more often. By then a
/// worker can fill some tens of mebibytes at most.
const EVERY: Duration = Duration::from_millis(20);

/// The signal that ends the watching thread's sleep. Its handler does nothing.
pub(in crate::worker) const TICK: i32 = SIGVTALRM;

/// How much a worker uses.
#[derive(Debug)]
pub(in crate::worker) struct Watched {
    pid: i32,
    limit_bytes: u64,
    looked: Instant,
    timer: io::Result<CpuTimer>,
}

impl Watched {
    /// Wakes the calling thread while this process works.
    pub(super) fn of(pid: i32, limit_bytes: u64) -> Self {
        Self {
            pid,
            limit_bytes,
            looked: Instant::now(),
            timer: CpuTimer::new(pid, EVERY, TICK),
        }
    }

    /// Why nothing wakes the thread while the process works.
    pub(in crate::worker) fn failure(&self) -> Option<&io::Error> {
        self.timer.as_ref().err()
    }

    /// The failure, if it uses more than its limit.
    pub(in crate::worker) fn excess(&mut self) -> Option<String> {
        if self.looked.elapsed() < EVERY / 2 {
            return None;
        }
        self.looked = Instant::now();
        let used = private_bytes(self.pid)?;
        (used > self.limit_bytes + OWN_BYTES).then(|| {
            let (used, limit) = (used >> 20, self.limit_bytes >> 20);
            format!("used {used} MiB of memory, and `limits.memory_mib` gives it {limit}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This process, last measured a while ago.
    fn watched(limit_bytes: u64) -> Watched {
        Watched {
            pid: i32::try_from(std::process::id()).unwrap(),
            limit_bytes,
            looked: Instant::now().checked_sub(EVERY).unwrap(),
            timer: Err(io::Error::other("no timer")),
        }
    }

    #[test]
    fn memory_beyond_the_limit_is_reported() {
        let used = vec![1_u8; 2 * OWN_BYTES as usize];
        let excess = watched(0).excess().expect("it uses more than nothing");
        assert!(
            excess.contains("`limits.memory_mib` gives it 0"),
            "{excess}"
        );
        assert_eq!(used[used.len() - 1], 1);
    }

    #[test]
    fn memory_within_the_limit_is_fine() {
        assert_eq!(watched(1 << 40).excess(), None);
    }
}
