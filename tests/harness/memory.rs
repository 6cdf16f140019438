//! The memory of a process, and whether reloads leak any of it.

use std::{fs, process::Command, time::Instant};

use crate::{Lab, SOON, TestHost};

/// How many mappings or threads may come and go by themselves, mostly stacks. A version that
/// stays has four mappings.
const FEW: usize = 16;

/// The same for descriptors; a version that stays has one.
const FEW_DESCRIPTORS: usize = 8;

/// Memory that the allocator may or may not have freed: the buffer of the last file.
const LAST_FILE_KIB: u64 = 1 << 10;

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

impl Lab {
    /// Starts a host that gets hints by request only, to measure its memory.
    #[track_caller]
    pub fn start_with_one_heap(&self) -> TestHost {
        // The log in memory would fill up to its bound.
        let mut serve = self.serve("watch = false\nlog = { bytes = 65536 }");
        keep_one_heap(&mut serve);
        TestHost::start(serve, self.runtime_dir())
    }
}

/// Its allocator keeps no heaps for threads that have ended: megabytes, and now more, now less, in
/// which nobody finds what is left behind.
pub fn keep_one_heap(host: &mut Command) {
    host.env("MALLOC_ARENA_MAX", "1");
}

impl TestHost {
    /// Its memory once no old version is ending.
    #[track_caller]
    pub fn at_rest(&self) -> Footprint {
        self.wait_for("the end of all old versions", |status| {
            let mut plugins = status.plugins.iter();
            plugins.all(|plugin| plugin.ending.is_empty()).then_some(())
        });
        Footprint::of(self.pid())
    }

    /// Waits until it holds no more than `before`, but for so much memory: the last threads may
    /// still be on their way out.
    ///
    /// # Panics
    /// If something is left behind.
    #[track_caller]
    pub fn holds_no_more_than(&self, before: &Footprint, more_kib: u64) -> Footprint {
        let deadline = Instant::now() + SOON;
        loop {
            let now = self.at_rest();
            let is_flat = now.rss_kib <= before.rss_kib + LAST_FILE_KIB + more_kib
                && now.mappings <= before.mappings + FEW
                && now.descriptors <= before.descriptors + FEW_DESCRIPTORS
                && now.threads <= before.threads + FEW;
            if is_flat {
                return now;
            }
            assert!(
                Instant::now() < deadline,
                "more than {more_kib} KiB and {LAST_FILE_KIB}, or more than memory: {before:?}, and now {now:?}"
            );
        }
    }
}
