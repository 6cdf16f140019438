//! What `hotmerge-announce` prints.
//!
//! Invariant: no output that is lost keeps a command from finishing its work. A reader that goes away
//! is not a failure; any other failed write is remembered, and fails a command that succeeded otherwise.

use std::{
    io::{self, ErrorKind, Write},
    sync::{Arc, OnceLock},
};

use signal_hook::{consts::SIGXFSZ, flag};

/// Makes a file that grew to its limit (`ulimit -f`) an error of the write that failed; by
/// default it kills.
pub(crate) fn outlive_size_limit() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// The first write that failed.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// The first write that failed, unless a reader went away.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

/// Writes bytes to standard output as they are.
pub(crate) fn print(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    keep(stdout.write_all(bytes).and_then(|()| stdout.flush()));
}

/// Writes a line to standard error.
pub(crate) fn complain(line: &str) {
    keep(writeln!(io::stderr(), "{line}"));
}

/// Remembers a failed write.
pub(crate) fn keep(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Only the first is reported.
        let _ = LOST.set(error);
    }
}
