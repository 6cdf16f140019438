//! Calls plugins continuously during a reload.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Result, anyhow};
use hotmerge_meta::{RuntimeDir, control::Client};

use super::host::call_on;

/// One thread per plugin, which calls continuously.
pub(super) struct Callers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Calls>>,
}

/// The results of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calls {
    pub(super) made: u64,
    pub(super) failed: u64,
}

impl Callers {
    pub(super) fn start(runtime: &RuntimeDir, announcement: &[u8]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let jobs = [
            ("counter", "add", Vec::new()),
            ("announce", "check", announcement.to_vec()),
        ];
        let mut threads = Vec::new();
        for (plugin, method, input) in jobs {
            let mut client = Client::connect(runtime)?;
            let stop = Arc::clone(&stop);
            threads.push(thread::spawn(move || {
                let mut calls = Calls::default();
                while !stop.load(Ordering::Relaxed) {
                    calls.made += 1;
                    if let Err(error) = call_on(&mut client, plugin, method, &input) {
                        eprintln!("a call of {plugin} failed: {error:#}");
                        calls.failed += 1;
                    }
                }
                calls
            }));
        }
        Ok(Self { stop, threads })
    }

    pub(super) fn stop(self) -> Result<Calls> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Calls::default();
        for thread in self.threads {
            let calls = thread.join().map_err(|_| anyhow!("a caller panicked"))?;
            sum.made += calls.made;
            sum.failed += calls.failed;
        }
        Ok(sum)
    }
}
