//! What the driver prints.
//!
//! Invariant: nobody who stops reading, and no full disk, keeps the driver from what is still to
//! be done. A reader that is gone has seen enough; what was lost in another way is remembered,
//! and makes the run a failure at its end.

use std::{
    fmt::Arguments,
    io::{self, Write},
    sync::OnceLock,
};

/// The first thing that could not be written.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// A line for whoever reads the results.
pub(crate) fn line(text: Arguments<'_>) {
    keep(writeln!(anstream::stdout().lock(), "{text}"));
}

/// Bytes for whoever reads the results, as they are.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    keep(out.write_all(bytes).and_then(|()| out.flush()));
}

/// A line for people, beside the output that may be for programs.
pub(crate) fn note(text: Arguments<'_>) {
    keep(writeln!(anstream::stderr().lock(), "{text}"));
}

/// What could not be written, if it was anybody's loss.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

/// Remembers what came of writing something.
pub(crate) fn keep(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        // The first one says it.
        let _ = LOST.set(error);
    }
}
