//! What the driver prints.
//!
//! Invariant: neither a closed pipe nor a full disk keeps the driver from finishing its work. A
//! closed pipe is not an error; any other failed write is remembered, and the run ends with
//! [`exit::FAILURE`](crate::exit::FAILURE).

use std::{
    fmt::Arguments,
    io::{self, Write},
    sync::OnceLock,
};

/// The first write that failed.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Prints a line to stdout.
pub(crate) fn line(text: Arguments<'_>) {
    keep(writeln!(anstream::stdout().lock(), "{text}"));
}

/// Writes bytes to stdout, unchanged.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    keep(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Prints a note to stderr, apart from output that programs may parse.
pub(crate) fn note(text: Arguments<'_>) {
    keep(writeln!(anstream::stderr().lock(), "{text}"));
}

/// The first failed write, unless a reader closed its pipe.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

/// Remembers a failed write.
pub(crate) fn keep(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        // Only the first is reported.
        let _ = LOST.set(error);
    }
}
