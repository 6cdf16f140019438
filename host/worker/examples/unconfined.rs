//! A worker program for tests that lies: it says that it has loaded and started a plugin, and leaves out a
//! part of its sandbox. The name of its file says which: `no-filters`, or `no-lock` for the second filter.
//!
//! In the host's probe it is honest, so that the host counts the sandbox as whole.
//!
//! Absent on purpose: plugins.

use std::{
    error::Error,
    fs::File,
    os::fd::{FromRawFd as _, OwnedFd},
};

use hotmerge_abi::STATUS_OK;
use hotmerge_sandbox::{
    Plan, descriptor, enter, lock,
    message::{length, report},
    probe,
};
use hotmerge_wire::{Geometry, Server, op};

fn main() -> Result<(), Box<dyn Error>> {
    // SAFETY: the host put all three there, and nobody else in this process owns them.
    let [plan, wire, crash] = unsafe {
        [descriptor::PLAN, descriptor::WIRE, descriptor::CRASH]
            .map(|number| OwnedFd::from_raw_fd(number))
    };
    let mut plan: Plan = serde_json::from_reader(File::from(plan))?;
    let server = Server::open(wire, Geometry::from_words(plan.geometry)?)?;
    if std::env::current_exe()?.ends_with("no-filters") && !plan.probe {
        plan.first.clear();
    }
    enter(&plan)?;
    if plan.probe {
        lock(&plan)?;
        probe(|text| {
            let head = length(1 + text.len());
            let message = [&head[..], &[report::TEXT], text.as_bytes()].concat();
            // A part that is not reported is one that the host counts as missing.
            let _ = rustix::io::write(&crash, &message);
        });
        return Ok(());
    }
    loop {
        let taken = server.next()?;
        let is_end = taken.op() == op::EXIT;
        let writer = taken.writer();
        taken.finish(STATUS_OK, &writer);
        if is_end {
            return Ok(());
        }
    }
}
