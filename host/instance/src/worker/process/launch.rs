//! How a worker is made.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, atomic::AtomicU32},
};

use hotmerge_loader::Constructors;
use hotmerge_sandbox::{
    Cgroups, Grant, Ids, Limits, Namespaces, Plan, Program, Spawned, message::Inbox,
    signal_on_message, spawn,
};
use hotmerge_wire::{Caller, Geometry, Server};
use rustix::{
    fs::MemfdFlags,
    pipe::{PipeFlags, pipe_with},
};

use super::{Link, Process, Watched, event};
use crate::{
    cancel::Cancel,
    worker::{
        error::LaunchError,
        output::{Budget, Printed},
    },
};

/// The filters for one set of grants.
pub(in crate::worker) type Filters = Arc<(Vec<Program>, Program)>;

/// Calls of one worker that may be in flight, and threads that carry them.
pub(in crate::worker) const MOST_OUTGOING: u32 = 8;

/// Largest request and reply in bytes.
pub(in crate::worker) const LARGEST_OUTGOING: u64 = 16 << 20;

/// Of the shared memory for these calls.
fn outgoing_geometry() -> Geometry {
    Geometry {
        slots: MOST_OUTGOING,
        area_bytes: LARGEST_OUTGOING,
        ..Geometry::default()
    }
}

/// What a worker is made of.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) struct Parts<'a> {
    /// The sealed image; none for a probe.
    pub(in crate::worker) image: Option<BorrowedFd<'a>>,
    /// Whose worker it is.
    pub(in crate::worker) plugin: &'a str,
    /// Of the C runtime, that the plugin needs.
    pub(in crate::worker) libraries: &'a [String],
    pub(in crate::worker) header: [u8; 16],
    /// What of the image would run while it is loaded.
    pub(in crate::worker) constructors: &'a Constructors,
    pub(in crate::worker) grants: &'a [Grant],
    pub(in crate::worker) limits: Limits,
    /// Whether the plugin requires others, which it may call.
    pub(in crate::worker) calls_others: bool,
    /// As whom it is to run, if the operator says so.
    pub(in crate::worker) user: Option<u32>,
}

/// Starts a worker on this thread.
pub(in crate::worker) fn launch(
    program: BorrowedFd<'_>,
    parts: &Parts<'_>,
    filters: &Filters,
    namespaces: Namespaces,
    ids: Ids,
    groups: Option<&Arc<Cgroups>>,
) -> Result<Process, LaunchError> {
    let geometry = Geometry::default();
    let outgoing_geometry = outgoing_geometry();
    let (caller, wire) = Caller::create(geometry).map_err(LaunchError::at("make shared memory"))?;
    let mut shared_bytes = geometry.bytes();
    let (outgoing, others_wire) = if parts.calls_others {
        shared_bytes += outgoing_geometry.bytes();
        let made =
            Server::create(outgoing_geometry).map_err(LaunchError::at("make shared memory"))?;
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
        outgoing: outgoing.is_some().then(|| outgoing_geometry.to_words()),
        libraries: parts.libraries.to_vec(),
        header: parts.header,
        disarmed: parts.constructors.disarmed().collect(),
        constructors: parts.constructors.to_words(),
        probe: parts.image.is_none(),
    };
    let plan = plan_file(&plan).map_err(LaunchError::at("write a plan"))?;
    let null = File::open("/dev/null").map_err(LaunchError::at("open `/dev/null`"))?;
    let (log, log_in) = messages()?;
    let (crash, crash_in) = messages()?;
    let (out, out_in) = output()?;
    let (err, err_in) = output()?;
    let unused = event().map_err(LaunchError::at("make an event descriptor"))?;
    // What a probe reports is asked of it after its end, and is no crash.
    if parts.image.is_some() {
        signal_on_message(crash.as_fd()).map_err(LaunchError::at("ask for a signal"))?;
    }
    let nothing = rustix::fs::memfd_create("hotmerge-probe", MemfdFlags::CLOEXEC)
        .map_err(LaunchError::at("make a file"))?;
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
        .map_err(LaunchError::at("make a cgroup for a worker"))?;
    let Spawned { pidfd, pid } = spawn(program, fds, namespaces, ids, group.as_ref())?;
    Ok(Process {
        link: Arc::new(Link {
            caller,
            outgoing,
            forwarders: AtomicU32::new(0),
            calls: Cancel::on_behalf_of(parts.plugin),
            pid,
            crash,
            end: Mutex::default(),
            kill_order: Mutex::default(),
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
        hit: None,
        survived: None,
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
fn messages() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(LaunchError::at("make a pipe"))
}

/// The host's end, which never waits, and the worker's, which does.
fn output() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    let pipe = || -> rustix::io::Result<_> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((ours, theirs))
    };
    pipe().map_err(LaunchError::at("make a pipe"))
}
