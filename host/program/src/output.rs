//! Everything the program writes: standard output and standard error.
//!
//! Invariant: no output that is lost keeps a command from finishing its work. A reader that goes
//! away is not a failure. Any other failed write, such as on a full disk, is remembered: it fails a
//! command that succeeded otherwise, and one sentence reports it wherever that can still be written.
//!
//! Absent on purpose: `println!` and its kind, which panic. Clippy denies them in this crate.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    sync::{Arc, OnceLock},
};

use anstream::AutoStream;
use serde::Serialize;
use signal_hook::consts::SIGXFSZ;

/// Makes a file that grew to its limit (`ulimit -f`) an error of the write that failed; by
/// default it kills.
pub(crate) fn outlive_size_limit() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write to {stream}: {source}")]
pub(crate) struct WriteError {
    stream: &'static str,
    source: io::Error,
}

/// The first write that failed.
static LOST: OnceLock<WriteError> = OnceLock::new();

/// The first write that failed, unless a reader went away.
pub(crate) fn lost() -> Option<&'static WriteError> {
    LOST.get()
}

/// Writes text to standard output, with its colours only on a terminal.
pub(crate) fn print(text: impl Display) {
    print_to_reader(text);
}

/// As [`print()`], and returns whether more can be written.
pub(crate) fn print_to_reader(text: impl Display) -> bool {
    let mut stream = AutoStream::auto(io::stdout().lock());
    deliver(&mut stream, STDOUT, text.to_string().as_bytes())
}

/// Writes one line of JSON to standard output.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    write(&line);
    Ok(())
}

/// Writes bytes to standard output as they are.
pub(crate) fn write(bytes: &[u8]) {
    deliver(&mut io::stdout().lock(), STDOUT, bytes);
}

/// Writes text to standard error. If that fails, only the exit code can still report it.
pub(crate) fn complain(text: impl Display) {
    let mut stream = AutoStream::auto(io::stderr().lock());
    deliver(&mut stream, STDERR, text.to_string().as_bytes());
}

const STDOUT: &str = "standard output";
const STDERR: &str = "standard error";

/// Returns whether more can be written.
fn deliver(to: &mut impl Write, stream: &'static str, bytes: &[u8]) -> bool {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Ok(()) => true,
        Err(source) => {
            if source.kind() != ErrorKind::BrokenPipe {
                // Only the first is reported.
                let _ = LOST.set(WriteError { stream, source });
            }
            false
        }
    }
}
