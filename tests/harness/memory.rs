//! What a process holds of the machine's memory.

use std::fs;

/// A process's memory at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Its physical memory, in KiB. Not its proportional share of it, which changes when other
    /// hosts come and go.
    pub rss_kib: u64,
    /// How many mappings it has.
    pub mappings: usize,
    /// How many descriptors it has open.
    pub descriptors: usize,
    /// How many threads it has.
    pub threads: usize,
}

impl Footprint {
    /// Of a process of the same user.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn of(pid: u32) -> Self {
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/{pid}/{name}")).expect("the process lives")
        };
        let count = |name: &str| {
            let entries = fs::read_dir(format!("/proc/{pid}/{name}"));
            entries.expect("the process lives").count()
        };
        let rollup = read("smaps_rollup");
        let rss = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
        let rss = rss.and_then(|rest| rest.trim().strip_suffix(" kB"));
        Self {
            rss_kib: rss
                .and_then(|number| number.trim().parse().ok())
                .expect("the kernel tells"),
            mappings: read("maps").lines().count(),
            descriptors: count("fd"),
            threads: count("task"),
        }
    }
}
