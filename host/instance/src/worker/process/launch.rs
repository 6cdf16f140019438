//! How a worker is made.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    iter,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use hotmerge_loader::Constructors;
use hotmerge_sandbox::{
    Cgroups, Grant, Ids, Judged, Limits, Namespaces, Plan, Program, Spawned, signal_on_message,
    spawn,
};
use hotmerge_wire::{Caller, Geometry, Server};
use rustix::{
    fs::MemfdFlags,
    pipe::{PipeFlags, pipe_with},
};

use super::{Link, Pipes, Process, event};
use crate::worker::error::LaunchError;

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

/// The parts of a worker.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) struct Parts<'a> {
    /// The sealed image; none for a probe.
    pub(in crate::worker) image: Option<BorrowedFd<'a>>,
    /// Whose worker it is.
    pub(in crate::worker) plugin: &'a str,
    /// Of the C runtime, that the plugin needs.
    pub(in crate::worker) libraries: &'a [String],
    pub(in crate::worker) header: [u8; 16],
    /// The code of the image that would run while it is loaded.
    pub(in crate::worker) constructors: &'a Constructors,
    pub(in crate::worker) grants: &'a [Grant],
    /// The files that they lead to, as judged.
    pub(in crate::worker) judged: &'a [Judged],
    pub(in crate::worker) limits: Limits,
    /// Whether the plugin requires others, which it may call.
    pub(in crate::worker) calls_others: bool,
    /// The user that it runs as, if configured.
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
    let (caller, wire) =
        Caller::create(geometry).map_err(LaunchError::at("create shared memory"))?;
    let outgoing_geometry = parts.calls_others.then(outgoing_geometry);
    let (outgoing, outgoing_wire) = outgoing_geometry
        .map(Server::create)
        .transpose()
        .map_err(LaunchError::at("create shared memory"))?
        .unzip();
    let plan = plan(
        parts,
        filters,
        (namespaces, ids),
        (geometry, outgoing_geometry),
    );
    let plan = plan_file(&plan).map_err(LaunchError::at("write a plan"))?;
    let null = File::open("/dev/null").map_err(LaunchError::at("open `/dev/null`"))?;
    let (log, log_in) = messages()?;
    let (crash, crash_in) = messages()?;
    let (out, out_in) = output()?;
    let (err, err_in) = output()?;
    let unused = event().map_err(LaunchError::at("create an event descriptor"))?;
    // A probe's reports are read after its end, and are not crashes.
    if parts.image.is_some() {
        signal_on_message(crash.as_fd()).map_err(LaunchError::at("request a signal"))?;
    }
    let nothing = rustix::fs::memfd_create("hotmerge-probe", MemfdFlags::CLOEXEC)
        .map_err(LaunchError::at("create a file"))?;
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
        outgoing_wire
            .as_ref()
            .map_or(null.as_fd(), |wire| wire.as_fd()),
    ];
    let group = groups
        .map(|groups| groups.group(&parts.limits, shared_bytes(geometry, outgoing_geometry)))
        .transpose()
        .map_err(LaunchError::at("create a cgroup for a worker"))?;
    let Spawned { pidfd, pid } = spawn(program, fds, namespaces, ids, group.as_ref())?;
    let link = Link::new(caller, outgoing, parts.plugin, pid, crash, unused);
    let pipes = Pipes { log, out, err };
    Ok(Process::new(link, pidfd, pipes, parts.limits, group))
}

/// What the host decided for a worker.
fn plan(
    parts: &Parts<'_>,
    filters: &Filters,
    (namespaces, ids): (Namespaces, Ids),
    (geometry, outgoing): (Geometry, Option<Geometry>),
) -> Plan {
    let shared_bytes = shared_bytes(geometry, outgoing);
    Plan {
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
        judged: parts.judged.to_vec(),
        limits: parts.limits,
        shared_bytes,
        first: filters.0.clone(),
        second: filters.1.clone(),
        geometry: geometry.to_words(),
        outgoing: outgoing.map(Geometry::to_words),
        libraries: parts.libraries.to_vec(),
        header: parts.header,
        disarmed: parts.constructors.disarmed().collect(),
        constructors: parts.constructors.to_words(),
        probe: parts.image.is_none(),
    }
}

/// The memory that a worker shares with its host, in bytes.
fn shared_bytes(geometry: Geometry, outgoing: Option<Geometry>) -> u64 {
    let both = iter::once(geometry).chain(outgoing);
    both.map(|geometry| geometry.bytes() as u64).sum()
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
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(LaunchError::at("create a pipe"))
}

/// The host's end, which never waits, and the worker's, which does.
fn output() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    let pipe = || -> rustix::io::Result<_> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((ours, theirs))
    };
    pipe().map_err(LaunchError::at("create a pipe"))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use rustix::fs::{OFlags, fcntl_getfl};

    use super::*;

    const OWN: Namespaces = Namespaces::Own { network: true };

    fn plan_of(parts: &Parts<'_>, whom: (Namespaces, Ids), outgoing: Option<Geometry>) -> Plan {
        let filters = Arc::new((vec![Program(vec![1])], Program(vec![2])));
        plan(parts, &filters, whom, (Geometry::default(), outgoing))
    }

    fn parts(constructors: &Constructors) -> Parts<'_> {
        Parts {
            image: None,
            plugin: "one",
            libraries: &[],
            header: [7; 16],
            constructors,
            grants: &[],
            judged: &[],
            limits: Limits::default(),
            calls_others: false,
            user: None,
        }
    }

    #[test]
    fn another_user_is_user_one_in_its_namespace() {
        let none = Constructors::default();
        let who = |whom| {
            let plan = plan_of(&parts(&none), whom, None);
            (plan.namespaces, plan.become_id, plan.user)
        };
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(who((OWN, Ids::Own)), (true, None, own));
        assert_eq!(who((OWN, Ids::Other(70_000))), (true, Some(1), 70_000));
        assert_eq!(who((Namespaces::None, Ids::Own)), (false, None, own));
        let outside = who((Namespaces::None, Ids::Other(70_000)));
        assert_eq!(outside, (false, Some(70_000), 70_000));
    }

    #[test]
    fn only_a_process_without_image_probes() {
        let none = Constructors::default();
        let null = File::open("/dev/null").unwrap();
        let with_image = Parts {
            image: Some(null.as_fd()),
            ..parts(&none)
        };
        assert!(!plan_of(&with_image, (OWN, Ids::Own), None).probe);
        assert!(plan_of(&parts(&none), (OWN, Ids::Own), None).probe);
    }

    #[test]
    fn memory_for_outgoing_calls_counts_as_shared() {
        let none = Constructors::default();
        let plan = |outgoing| plan_of(&parts(&none), (OWN, Ids::Own), outgoing);
        let (without, with) = (plan(None), plan(Some(outgoing_geometry())));
        let more = outgoing_geometry().bytes() as u64;
        assert_eq!(with.shared_bytes, without.shared_bytes + more);
        assert_eq!((without.outgoing, with.outgoing.is_some()), (None, true));
    }

    #[test]
    fn a_worker_reads_the_plan_from_its_beginning() {
        let none = Constructors::default();
        let plan = plan_of(&parts(&none), (OWN, Ids::Own), None);
        let mut text = String::new();
        let mut file = File::from(plan_file(&plan).unwrap());
        file.read_to_string(&mut text).unwrap();
        let read: Plan = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{read:?}"), format!("{plan:?}"));
    }

    #[test]
    fn only_printing_may_block_a_worker() {
        let blocks = |end: &OwnedFd| !fcntl_getfl(end).unwrap().contains(OFlags::NONBLOCK);
        let (ours, theirs) = messages().unwrap();
        assert_eq!((blocks(&ours), blocks(&theirs)), (false, false));
        let (ours, theirs) = output().unwrap();
        assert_eq!((blocks(&ours), blocks(&theirs)), (false, true));
    }
}
