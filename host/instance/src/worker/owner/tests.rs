//! What becomes of a worker whose process cannot start.

use std::fs::File;

use hotmerge_meta::testing::plugin;

use super::*;
use crate::cancel::Cancel;
use crate::worker::fixtures::{Host, image, settings};

fn start(workers: &Arc<Workers>) -> LoadError {
    let meta = Arc::new(plugin("one", "1.0.0", Vec::new()));
    let (host, _) = Host::alone();
    let with = StartWith {
        settings: &workers.settings(),
        config: "{}",
        break_off: &Cancel::default(),
    };
    let started = WorkerOwner::start(workers, host, &meta, image(), Vec::new(), &with);
    started.expect_err("it cannot start")
}

#[test]
fn without_a_program_there_is_no_process() {
    let refused = start(&Workers::without_processes(settings()));
    assert!(matches!(refused, LoadError::NoProcess(_)), "{refused}");
    assert!(
        refused.to_string().contains("there is no worker program"),
        "{refused}"
    );
}

#[test]
fn a_program_that_ends_at_once_is_reported() {
    let program = File::open("/bin/true").expect("every system has it");
    let refused = start(&Workers::with_program(settings(), program.into()));
    assert!(matches!(refused, LoadError::Refused(_)), "{refused}");
    let text = refused.to_string();
    assert!(
        text.contains("exited with status 0") && text.contains("while it was loaded"),
        "{text}"
    );
}
