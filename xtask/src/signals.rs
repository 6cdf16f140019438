//! Signals as the driver expects them, whatever the one that started it had blocked or ignored.
//!
//! A program inherits the signal mask and every ignored signal. With SIGCHLD ignored the system
//! discards the exit status of children, and cargo fails as well; with SIGTERM blocked or ignored
//! nobody could stop a build. Children get the default action of whatever is handled here, and no
//! mask: the standard library sees to that, and to SIGPIPE.
//!
//! Ignored SIGHUP, SIGINT and SIGQUIT stay ignored, here and in children: that is how `nohup` and a
//! shell's background jobs keep a build going.

use std::sync::{Arc, atomic::AtomicBool};

use anyhow::{Context as _, Result};
use nix::sys::signal::SigSet;
use signal_hook::{
    consts::{SIGCHLD, SIGTERM, SIGXFSZ},
    flag,
};

/// For the start of the program: threads that run already keep their masks.
pub(crate) fn reset() -> Result<()> {
    // Any handler prevents that the status of children is discarded.
    flag::register(SIGCHLD, Arc::default()).context("failed to handle SIGCHLD")?;
    // A file at its size limit (`ulimit -f`) is an error of the write; by default it kills.
    flag::register(SIGXFSZ, Arc::default()).context("failed to handle SIGXFSZ")?;
    let always = Arc::new(AtomicBool::new(true));
    flag::register_conditional_default(SIGTERM, always).context("failed to handle SIGTERM")?;
    let none = SigSet::empty();
    none.thread_set_mask()
        .context("failed to unblock signals")?;
    Ok(())
}
