//! Everything the program writes: standard output and standard error.
//!
//! A reader that goes away is not a failure: the rest of the output is dropped, the command
//! still does its work, and its exit code is that of the work. Anything else that stops the
//! output, such as a full disk, fails the command with one sentence.
//!
//! Absent on purpose: `println!` and its kind, which panic. Clippy denies them in this crate.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    sync::Arc,
};

use anstream::AutoStream;
use serde::Serialize;
use signal_hook::consts::SIGXFSZ;

/// Makes a file that grew to its limit (`ulimit -f`) an error of the write that failed; by
/// default it kills.
pub(crate) fn outlive_size_limit() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Standard output or standard error cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write to standard {stream}: {source}")]
pub(crate) struct WriteError {
    stream: &'static str,
    source: io::Error,
}

const OUTPUT: &str = "output";
const ERROR: &str = "error";

/// Writes text to standard output, with its colours only on a terminal.
pub(crate) fn print(text: impl Display) -> Result<(), WriteError> {
    let mut stream = AutoStream::auto(io::stdout().lock());
    deliver(OUTPUT, &mut stream, text.to_string().as_bytes())
}

/// As [`print()`], and returns whether standard output is still open.
pub(crate) fn print_to_reader(text: impl Display) -> Result<bool, WriteError> {
    let mut stream = AutoStream::auto(io::stdout().lock());
    let written = stream.write_all(text.to_string().as_bytes());
    match written.and_then(|()| stream.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(source) => Err(WriteError {
            stream: OUTPUT,
            source,
        }),
    }
}

/// Writes one line of JSON to standard output.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(write(&line)?)
}

/// Writes bytes to standard output as they are.
pub(crate) fn write(bytes: &[u8]) -> Result<(), WriteError> {
    deliver(OUTPUT, &mut io::stdout().lock(), bytes)
}

/// Writes text to standard error. If that fails, only the exit code can still report it.
pub(crate) fn complain(text: impl Display) -> Result<(), WriteError> {
    let mut stream = AutoStream::auto(io::stderr().lock());
    deliver(ERROR, &mut stream, text.to_string().as_bytes())
}

fn deliver(name: &'static str, stream: &mut impl Write, bytes: &[u8]) -> Result<(), WriteError> {
    match stream.write_all(bytes).and_then(|()| stream.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => Err(WriteError {
            stream: name,
            source,
        }),
        _ => Ok(()),
    }
}
