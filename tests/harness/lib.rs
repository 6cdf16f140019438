//! The harness of the end-to-end tests: real processes in temporary directories.
//!
//! * [`Lab`] is one test's world: a plugin directory, a runtime directory, nothing shared.
//! * [`TestHost`] is a running `hotmerge serve`; [`Callers`] call its plugins all the while.
//! * [`GatedHost`] is one whose plugin stops at a [`Gate`] until its test lets it continue.
//! * [`Http`] is a client of its HTTP front.
//! * [`Variant`] and [`Package`] make plugins, good and bad, out of one built fixture.
//! * [`Neighbour`] is a plugin that nobody attacks, and what must hold after attacks.
//! * [`Workspace`] is a plugin author's workspace, and the driver run on it.
//!
//! Invariants: every wait ends with an event or, after [`SOON`], with a panic that says what
//! did not happen; only processes that were started here are ended here, also when a test
//! panics; tests run side by side.
//!
//! Absent on purpose: sleeping, and any statement about how fast something is.

#![forbid(unsafe_code)]

mod browser;
mod callers;
mod causes;
mod cgroup;
mod debian;
mod disk;
mod forbidding;
mod gate;
mod gated;
mod ground;
mod help;
mod host;
mod http;
mod kept;
mod lab;
mod log;
mod memory;
mod neighbour;
mod ordinary;
mod package;
mod process;
mod programs;
mod prometheus;
mod rsyslog;
mod sandboxed;
mod steady;
mod storm;
mod streams;
mod terminal;
mod variant;
mod vitals;
mod workspace;

use std::time::Duration;

pub use browser::Browser;
pub use callers::{Callers, Tally};
pub use causes::cause;
pub use cgroup::TestGroup;
pub use disk::TinyDisk;
pub use forbidding::{Forbidden, without};
pub use gate::{Gate, Visitor};
pub use gated::GatedHost;
pub use ground::Ground;
pub use help::commands_of;
pub use host::{TestHost, call, call_params, reload_after};
pub use http::{Answer, Http, closed_http, open_http, read_all};
pub use kept::{Kept, Unanswered};
pub use lab::Lab;
pub use log::Log;
pub use memory::{Footprint, keep_one_heap};
pub use neighbour::Neighbour;
pub use ordinary::{NOBODY, hosts_are_ordinary, listen_as};
pub use package::Package;
pub use process::{Process, Ran, copy_environment, copy_program, is_ready, run};
pub use programs::{announcer, driver, example, hotmerge, repository, scratch, worker};
pub use prometheus::{hotmerge_metrics, prometheus};
pub use rsyslog::Rsyslog;
pub use sandboxed::{HANGS_MS, UNTIRING};
pub use steady::{Ask, Steady};
pub use storm::{Numbers, Storm};
pub use streams::{closed_pipe, full_disk};
pub use terminal::Screen;
pub use variant::{
    Variant, abrupt, actor, attacks, attacks_at, honest, lock, named_actor, plain, reader,
};
pub use vitals::{Vitals, children, cpu};
pub use workspace::{Driver, Workspace, actions};

/// How long a test waits for something that should happen at once. Generous: a machine may be busy.
pub const SOON: Duration = Duration::from_secs(60);

/// How long a test waits for cargo.
pub const BUILT: Duration = Duration::from_secs(600);

/// How often a test repeats its work: as the environment says, otherwise as CI does.
///
/// # Panics
/// If the word is not a number: a long run that is a short one would show less than it seems to.
#[track_caller]
pub fn how_often(variable: &str, in_ci: u64) -> u64 {
    std::env::var(variable).map_or(in_ci, |text| {
        let number = text.parse();
        number.unwrap_or_else(|_| panic!("{variable} is a number, not `{text}`"))
    })
}

/// Says why a test shows nothing on this machine. The caller returns then.
///
/// Test programs hide what passing tests print; the program that counts names a file by
/// `HOTMERGE_TEST_SKIPPED`.
///
/// # Panics
/// If the file cannot be written: a skip without a record would count as passed.
pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
    if let Some(path) = std::env::var_os("HOTMERGE_TEST_SKIPPED") {
        let file = std::fs::OpenOptions::new().append(true).open(path);
        let mut file = file.expect("the list of skipped tests can be opened");
        let line = format!("{why}\n");
        std::io::Write::write_all(&mut file, line.as_bytes()).expect("a skip can be recorded");
    }
}
