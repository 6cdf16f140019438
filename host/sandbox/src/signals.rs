//! Signals as a process expects them, whatever the one that started it had blocked or ignored.
//!
//! A new program inherits the signal mask and every ignored signal. A supervisor that blocks
//! SIGTERM while it starts a host would otherwise have made one that never stops, and one that
//! ignores SIGCHLD a host that never learns how its children ended.
//!
//! Absent on purpose: handlers, which no program inherits.

use std::{mem, ptr};

/// Lets the calling thread receive every signal, and gives every ignored signal its default
/// action. SIGPIPE stays ignored, as Rust's own start has it. For the start of a program: threads
/// that run already keep their masks.
pub fn reset_signals() {
    set_mask(false);
    default_ignored(&[libc::SIGPIPE]);
}

/// Keeps every signal back from the calling thread, and from those that it starts, until
/// [`reset_signals`]: none kills a process that has not said yet what it does about it. Faults of the
/// process itself are not kept back.
pub fn hold_signals() {
    set_mask(true);
}

fn set_mask(is_full: bool) {
    // SAFETY: the set is initialised by the call that fills or empties it, and only the calling
    // thread's mask changes.
    unsafe {
        let mut set = mem::zeroed();
        if is_full {
            libc::sigfillset(&raw mut set);
        } else {
            libc::sigemptyset(&raw mut set);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Gives every ignored signal but `kept` its default action. Only system calls, so that it may
/// run between `clone` and `execve`.
pub(crate) fn default_ignored(kept: &[libc::c_int]) {
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| !kept.contains(signal)) {
        // SAFETY: both actions are plain data that outlive the calls; signals that the C library
        // keeps for itself are refused with an error.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            let known = libc::sigaction(signal, ptr::null(), &raw mut action) == 0;
            if known && action.sa_sigaction == libc::SIG_IGN {
                action.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const action, ptr::null_mut());
            }
        }
    }
}
