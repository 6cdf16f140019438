//! Resource limits of a worker.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{Grant, Plan, descriptor};

/// Address space beyond the limit on private memory: code, stacks that are reserved and not
/// used, and arenas of the allocator, which reserves 64 MiB for each. As what is mapped read-only at first
/// counts here only, code that means to can write to all of it, until the host sees that.
const SLACK_BYTES: u64 = 1 << 30;

/// Sets all limits; returns what could not be set.
pub(crate) fn set(plan: &Plan) -> Vec<String> {
    let limits = &plan.limits;
    let may_write = plan
        .grants
        .iter()
        .any(|grant| matches!(grant, Grant::Files { write: true, .. }));
    // It counts all processes of a user: without namespaces or a user of its own, the host's too.
    let counts_alone = plan.namespaces || plan.become_id.is_some();
    let wanted = [
        (Resource::Data, "memory", Some(limits.memory_bytes)),
        (
            Resource::As,
            "address space",
            Some(limits.memory_bytes + plan.shared_bytes + SLACK_BYTES),
        ),
        (
            Resource::Nproc,
            "threads",
            counts_alone.then_some(limits.threads),
        ),
        (
            Resource::Nofile,
            "files",
            Some(limits.files + descriptor::COUNT as u64),
        ),
        (Resource::Core, "core", Some(0)),
        (Resource::Memlock, "locked memory", Some(0)),
        (Resource::Msgqueue, "message queues", Some(0)),
        (Resource::Fsize, "file size", (!may_write).then_some(0)),
        (
            Resource::Cpu,
            "processor time",
            (limits.cpu_s > 0).then_some(limits.cpu_s),
        ),
    ];
    let mut missing = Vec::new();
    if !counts_alone {
        missing.push(
            "the limit on threads: it would also count other threads of the host's user".to_owned(),
        );
    }
    for (resource, name, limit) in wanted {
        let Some(limit) = limit else { continue };
        // Under a stricter limit that one holds.
        let limit = getrlimit(resource)
            .maximum
            .map_or(limit, |hard| hard.min(limit));
        let both = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        if let Err(error) = setrlimit(resource, both) {
            missing.push(format!("the limit on {name}: {error}"));
        }
    }
    missing
}
