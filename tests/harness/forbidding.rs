//! A kernel that does not give everything: system calls that fail for a host and all that it
//! starts, as container engines and hardened systems have it.

use std::{collections::BTreeMap, thread};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// The numbers of this machine; the tests that use them say so elsewhere.
#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const CLONE: i64 = 56;
    pub(super) const MOUNT: i64 = 165;
    pub(super) const LANDLOCK: i64 = 444;
}
#[cfg(not(target_arch = "x86_64"))]
mod number {
    pub(super) const CLONE: i64 = 220;
    pub(super) const MOUNT: i64 = 40;
    pub(super) const LANDLOCK: i64 = 444;
}

const NEW_USER: u64 = 0x1000_0000;
const EPERM: u32 = 1;

/// What a kernel may forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// New user namespaces, as in most containers.
    Namespaces,
    /// Mounts in new namespaces, as with some security modules.
    Mounts,
    /// Landlock, as on older kernels.
    Landlock,
}

/// Runs `work` on a thread for which this is forbidden, and for every process that it starts.
///
/// # Panics
/// If the filter is not taken, or `work` panics.
#[track_caller]
pub fn without<T: Send>(forbidden: &[Forbidden], work: impl FnOnce() -> T + Send) -> T {
    let filter = filter(forbidden);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            apply_filter(&filter).expect("a thread may always give up rights");
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn filter(forbidden: &[Forbidden]) -> BpfProgram {
    let new_user = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(NEW_USER),
        NEW_USER,
    )
    .and_then(|condition| SeccompRule::new(vec![condition]))
    .expect("it is a rule");
    let rules: BTreeMap<_, _> = forbidden
        .iter()
        .map(|what| match what {
            Forbidden::Namespaces => (number::CLONE, vec![new_user.clone()]),
            Forbidden::Mounts => (number::MOUNT, Vec::new()),
            Forbidden::Landlock => (number::LANDLOCK, Vec::new()),
        })
        .collect();
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(EPERM),
        std::env::consts::ARCH.try_into().expect("a known machine"),
    )
    .and_then(BpfProgram::try_from)
    .expect("it is a filter")
}
