//! How a worker is made.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, atomic::AtomicU32},
};

use hotmerge_loader::Constructors;
use hotmerge_sandbox::{
    Cgroups, Grant, Ids, Limits, Namespaces, Plan, Spawned, message::Inbox, signal_on_message,
    spawn,
};
use hotmerge_wire::{Caller, Geometry, Server};
use rustix::{
    fs::MemfdFlags,
    pipe::{PipeFlags, pipe_with},
};

use super::{Line, Process, Watched, event};
use crate::{
    cancel::Cancel,
    cell::{
        cells::{Filters, told},
        others,
        output::{Budget, Printed},
    },
};

/// What a worker is made of.
#[derive(Clone, Copy, Debug)]
pub(in crate::cell) struct Parts<'a> {
    /// The sealed image; none for a probe.
    pub(in crate::cell) image: Option<BorrowedFd<'a>>,
    /// Whose worker it is.
    pub(in crate::cell) plugin: &'a str,
    /// Of the C runtime, that the plugin needs.
    pub(in crate::cell) libraries: &'a [String],
    pub(in crate::cell) header: [u8; 16],
    /// What of the image would run while it is loaded.
    pub(in crate::cell) constructors: &'a Constructors,
    pub(in crate::cell) grants: &'a [Grant],
    pub(in crate::cell) limits: Limits,
    /// Whether the plugin requires others, which it may call.
    pub(in crate::cell) calls_others: bool,
    /// As whom it is to run, if the operator says so.
    pub(in crate::cell) user: Option<u32>,
}

/// Starts a worker on this thread.
pub(in crate::cell) fn launch(
    program: BorrowedFd<'_>,
    parts: &Parts<'_>,
    filters: &Filters,
    namespaces: Namespaces,
    ids: Ids,
    groups: Option<&Arc<Cgroups>>,
) -> Result<Process, String> {
    let geometry = Geometry::default();
    let outgoing = others::geometry();
    let (caller, wire) = Caller::create(geometry).map_err(told("make shared memory"))?;
    let mut shared_bytes = geometry.bytes();
    let (others, others_wire) = if parts.calls_others {
        shared_bytes += outgoing.bytes();
        let made = Server::create(outgoing).map_err(told("make shared memory"))?;
        (Some(made.0), Some(made.1))
    } else {
        (None, None)
    };
    let plan = Plan {
        namespaces: namespaces != Namespaces::None,
        become_id: match (ids, namespaces) {
            (Ids::Own, _) => None,
            (Ids::Other(_), Namespaces::Own { .. }) => Some(1),
            (Ids::Other(id), Namespaces::None) => Some(id),
        },
        user: match ids {
            Ids::Own => rustix::process::geteuid().as_raw(),
            Ids::Other(id) => id,
        },
        grants: parts.grants.to_vec(),
        limits: parts.limits,
        shared_bytes: shared_bytes as u64,
        first: filters.0.clone(),
        second: filters.1.clone(),
        geometry: geometry.to_words(),
        outgoing: others.is_some().then(|| outgoing.to_words()),
        libraries: parts.libraries.to_vec(),
        header: parts.header,
        disarmed: parts.constructors.disarmed().collect(),
        constructors: parts.constructors.to_words(),
        probe: parts.image.is_none(),
    };
    let plan = plan_file(&plan).map_err(told("write a plan"))?;
    let null = File::open("/dev/null").map_err(told("open `/dev/null`"))?;
    let (log, log_in) = messages()?;
    let (crash, crash_in) = messages()?;
    let (out, out_in) = output()?;
    let (err, err_in) = output()?;
    let unused = event().map_err(told("make an event descriptor"))?;
    // What a probe reports is asked of it after its end, and is no crash.
    if parts.image.is_some() {
        signal_on_message(crash.as_fd()).map_err(told("ask for a signal"))?;
    }
    let nothing = rustix::fs::memfd_create("hotmerge-probe", MemfdFlags::CLOEXEC)
        .map_err(|error| told("make a file")(error.into()))?;
    let image = parts.image.unwrap_or(nothing.as_fd());
    let fds = [
        null.as_fd(),
        out_in.as_fd(),
        err_in.as_fd(),
        plan.as_fd(),
        wire.as_fd(),
        image,
        log_in.as_fd(),
        crash_in.as_fd(),
        others_wire
            .as_ref()
            .map_or(null.as_fd(), |wire| wire.as_fd()),
    ];
    let group = groups
        .map(|groups| groups.group(&parts.limits, shared_bytes as u64))
        .transpose()
        .map_err(told("make a cgroup for a worker"))?;
    let Spawned { pidfd, pid } =
        spawn(program, fds, namespaces, ids, group.as_ref()).map_err(|error| error.to_string())?;
    Ok(Process {
        line: Arc::new(Line {
            caller,
            others,
            carriers: AtomicU32::new(0),
            calls: Cancel::on_behalf_of(parts.plugin),
            pid,
            crash,
            end: Mutex::default(),
            unused,
        }),
        pidfd,
        log,
        records: Inbox::default(),
        reports: Inbox::default(),
        printed: [Printed::new(out, "stdout"), Printed::new(err, "stderr")],
        log_budget: Budget::new(),
        crash_closed: false,
        report_budget: Budget::new(),
        end_by: None,
        watched: Watched::of(pid, parts.limits.memory_bytes),
        limits: parts.limits,
        reaped: false,
        group: group.map(Box::new),
    })
}

fn plan_file(plan: &Plan) -> std::io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create(
        "hotmerge-plan",
        MemfdFlags::CLOEXEC,
    )?);
    file.write_all(&serde_json::to_vec(plan)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// The host's end and the worker's, of which none ever waits.
fn messages() -> Result<(OwnedFd, OwnedFd), String> {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|error| told("make a pipe")(error.into()))
}

/// The host's end, which never waits, and the worker's, which does.
fn output() -> Result<(OwnedFd, OwnedFd), String> {
    let pipe = || -> rustix::io::Result<_> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((ours, theirs))
    };
    pipe().map_err(|error| told("make a pipe")(error.into()))
}
