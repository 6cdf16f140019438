//! The small program that runs a sandboxed plugin.
//!
//! Only a host starts it, with descriptors that `hotmerge-sandbox` numbers. It enters the sandbox,
//! loads the plugin, completes the sandbox, runs the plugin's constructors, and answers calls until the
//! host or the plugin ends it.
//!
//! Invariant: both filters are in place before the plugin's first instruction runs; until then nobody
//! but this program answers the host.
//!
//! Absent on purpose: command line, configuration, and any decision about what follows from a
//! failure; that is the host's.

mod crash;
mod error;
mod serve;
mod services;
mod sink;
mod start;

use std::{
    io::Read as _,
    os::fd::{FromRawFd as _, OwnedFd},
    process::ExitCode,
    sync::Arc,
};

use hotmerge_sandbox::{Plan, descriptor, probe};
use hotmerge_wire::{Caller, Geometry, Server};

use crate::{error::SetupError, services::Services};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hotmerge-worker, which only a host starts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), SetupError> {
    start::let_signals_in();
    start::keep_few_arenas();
    let plan = read_plan().map_err(SetupError::Plan)?;
    // SAFETY: the host put both there, and nobody else in this process owns them.
    let [wire, outgoing_wire] = unsafe {
        [descriptor::WIRE, descriptor::OUTGOING].map(|number| OwnedFd::from_raw_fd(number))
    };
    let server =
        Server::open(wire, Geometry::from_words(plan.geometry)?).map_err(SetupError::Memory)?;
    let outgoing = match plan.outgoing {
        Some(words) => {
            let geometry = Geometry::from_words(words)?;
            Some(Caller::open(&outgoing_wire, geometry).map_err(SetupError::Memory)?)
        }
        None => None,
    };
    drop(outgoing_wire);
    start::load_libraries(&plan.libraries);
    crash::catch_signals();
    let entered = hotmerge_sandbox::enter(&plan);
    if plan.probe {
        // Without a whole entry no plugin would be loaded, so there is nothing to try.
        for part in entered.map_err(SetupError::Enter)?.missing {
            crash::tell(&format!("missing {part}"));
        }
        hotmerge_sandbox::lock(&plan).map_err(SetupError::Lock)?;
        probe(crash::tell);
        return Ok(());
    }
    let server = Box::leak(Box::new(server));
    let services = Arc::new(Services { server, outgoing });
    serve::run(server, services, &plan, entered)
}

fn read_plan() -> std::io::Result<Plan> {
    // SAFETY: as in `run`.
    let mut file = unsafe { std::fs::File::from_raw_fd(descriptor::PLAN) };
    let mut plan = Vec::new();
    file.read_to_end(&mut plan)?;
    Ok(serde_json::from_slice(&plan)?)
}
