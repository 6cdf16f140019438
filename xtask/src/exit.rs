//! The driver's exit codes. Scripts rely on them.

use std::{io, process::ExitCode};

/// The command succeeded.
pub const OK: u8 = 0;
/// Any failure without its own code; the message gives the reason.
pub const FAILURE: u8 = 1;
/// The command line is invalid.
pub const USAGE: u8 = 2;
/// A plugin failed to build. Nothing was staged.
pub const BUILD: u8 = 3;
/// `--notify require`, but no host took the request.
pub const NO_HOST: u8 = 4;
/// The host refused at least one plugin.
pub const REFUSED: u8 = 5;

/// The same, as text for `--help`.
pub(crate) const HELP: &str = "Exit codes:
  0  success
  1  failure; the message gives the reason
  2  invalid command line
  3  a plugin failed to build; nothing was staged
  4  `--notify require`, but no host answered
  5  the host refused a plugin";

/// A failure with its own exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// One of the constants of this module.
    pub code: u8,
    /// What failed.
    pub message: String,
}

impl CommandError {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Turns a command's result into the process's exit code, and prints why it failed.
pub(crate) fn report(result: anyhow::Result<u8>) -> ExitCode {
    let error = match result {
        Ok(code) => return code.into(),
        Err(error) => error,
    };
    if is_broken_pipe(&error) {
        // The reader of our output has closed the pipe.
        return OK.into();
    }
    anstream::eprintln!("{ERROR}error:{ERROR:#} {}", sentence(&error));
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<CommandError>())
        .map_or(FAILURE, |failure| failure.code)
        .into()
}

const ERROR: anstyle::Style = anstyle::AnsiColor::Red.on_default().bold();

/// The error and its causes, each once: some library errors already include their cause.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.ends_with(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn a_cause_is_printed_once() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let written = Err::<(), _>(full).context("failed to write `a`: no storage space");
        let staged = written.context("failed to stage");
        assert_eq!(
            sentence(&staged.unwrap_err()),
            "failed to stage: failed to write `a`: no storage space"
        );
        assert_eq!(sentence(&anyhow!("a").context("b")), "b: a");
    }
}
