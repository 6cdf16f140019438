//! The two halves of an uneven memory barrier: next to nothing for the many calls,
//! a system call for the rare switch.
//!
//! Invariant: both halves belong to one [`Kind`], which is chosen once per process,
//! before the first of either runs.

use crate::sync::{Ordering, fence};

/// How the two halves are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A compiler fence on one side, `membarrier` on the other.
    #[cfg(not(loom))]
    Membarrier,
    /// Sequentially consistent fences on both sides.
    Fences,
}

impl Kind {
    /// The kind that this process uses. The first call chooses it, which takes
    /// milliseconds if threads already run: the kernel waits for all of them.
    #[cfg(not(loom))]
    pub(crate) fn chosen() -> Self {
        static CHOSEN: std::sync::OnceLock<Kind> = std::sync::OnceLock::new();
        *CHOSEN.get_or_init(|| Self::choose(kernel::register))
    }

    /// A model knows no `membarrier`; two fences promise the same.
    #[cfg(loom)]
    pub(crate) fn chosen() -> Self {
        Self::Fences
    }

    #[cfg(not(loom))]
    fn choose(register: impl FnOnce() -> rustix::io::Result<()>) -> Self {
        // Absent from old kernels, and refused by strict seccomp policies.
        match register() {
            Ok(()) => Self::Membarrier,
            Err(_) => Self::Fences,
        }
    }

    /// The caller's half.
    #[inline(always)]
    pub(crate) fn light(self) {
        match self {
            #[cfg(not(loom))]
            Self::Membarrier => std::sync::atomic::compiler_fence(Ordering::SeqCst),
            Self::Fences => fence(Ordering::SeqCst),
        }
    }

    /// The writer's half.
    ///
    /// # Panics
    /// If the kernel granted `membarrier` at first and refuses it now, as under a
    /// seccomp policy that was installed too late. Callers already rely on it then,
    /// and going on could free a version under a call.
    pub(crate) fn heavy(self) {
        fence(Ordering::SeqCst);
        #[cfg(not(loom))]
        if self == Self::Membarrier {
            kernel::barrier();
            fence(Ordering::SeqCst);
        }
    }
}

#[cfg(not(loom))]
mod kernel {
    use rustix::io;
    use rustix::thread::{MembarrierCommand as Command, membarrier};

    /// Asks the kernel to allow [`barrier`] in this process.
    pub(super) fn register() -> io::Result<()> {
        #[cfg(test)]
        if std::env::var_os(crate::tests::REFUSE_MEMBARRIER).is_some() {
            return Err(io::Errno::PERM);
        }
        membarrier(Command::RegisterPrivateExpedited)
    }

    /// Returns after every running thread of this process has passed a full barrier.
    pub(super) fn barrier() {
        loop {
            match membarrier(Command::PrivateExpedited) {
                Ok(()) => return,
                // The kernel needs a little memory to name the processors.
                Err(io::Errno::NOMEM) => std::thread::yield_now(),
                Err(error) => panic!(
                    "failed to order memory by `membarrier`: {error}; it was allowed when this \
                     process started, so install a seccomp policy before that or let it pass"
                ),
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Kind;
    use rustix::io::Errno;

    #[test]
    fn a_refusing_kernel_means_fences_on_both_sides() {
        for refusal in [Errno::NOSYS, Errno::PERM, Errno::INVAL] {
            assert_eq!(Kind::choose(|| Err(refusal)), Kind::Fences);
        }
        assert_eq!(Kind::choose(|| Ok(())), Kind::Membarrier);
    }
}
