//! Whether this process was forked from the one that uses the library.
//!
//! A child has the memory of its parent but none of its threads: whatever waits for one of them would wait
//! for ever.

use std::sync::{
    Once,
    atomic::{AtomicBool, Ordering},
};

static FORKED: AtomicBool = AtomicBool::new(false);

extern "C" fn in_child() {
    FORKED.store(true, Ordering::Relaxed);
}

/// Notices forks from now on.
pub(crate) fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the handler only stores to a static, which is permitted in a forked child. The C library
        // removes it if it unloads this library.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// Whether this is such a child.
#[inline]
pub(crate) fn is_child() -> bool {
    FORKED.load(Ordering::Relaxed)
}
