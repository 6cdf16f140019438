//! Standard streams that take nothing.

use std::{fs::File, io, process::Stdio};

/// A stream to a disk that is full.
///
/// # Panics
/// If there is no `/dev/full`.
#[must_use]
pub fn full_disk() -> Stdio {
    let full = File::options().write(true).open("/dev/full");
    full.expect("`/dev/full` is there").into()
}

/// A pipe that nobody reads any more.
///
/// # Panics
/// If this process may open nothing more.
#[must_use]
pub fn closed_pipe() -> Stdio {
    io::pipe().expect("there are descriptors").1.into()
}
