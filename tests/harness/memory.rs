//! What a process holds of the machine's memory.

use std::fs;

/// A process's memory at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Its proportional share of physical memory, in KiB.
    pub pss_kib: u64,
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
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let pss = pss.and_then(|rest| rest.trim().strip_suffix(" kB"));
        Self {
            pss_kib: pss
                .and_then(|number| number.trim().parse().ok())
                .expect("the kernel tells the share"),
            mappings: read("maps").lines().count(),
            descriptors: count("fd"),
            threads: count("task"),
        }
    }
}
