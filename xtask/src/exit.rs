//! What the driver's exit codes mean. Scripts rely on them.

use std::process::ExitCode;

use crate::output::{self, note};

/// Everything that was asked for was done.
pub const OK: u8 = 0;
/// Something failed that has no code of its own; the message says what.
pub const FAILURE: u8 = 1;
/// The command line makes no sense.
pub const USAGE: u8 = 2;
/// Cargo failed: a plugin does not build. Nothing was staged.
pub const BUILD: u8 = 3;
/// `--notify require`, and no host that serves the staging directory took the request.
pub const NO_HOST: u8 = 4;
/// The host refused at least one of the plugins.
pub const REFUSED: u8 = 5;

/// The same, for people who read `--help`.
pub(crate) const HELP: &str = "Exit codes:
  0  done
  1  failed; the message says why
  2  the command line makes no sense
  3  a plugin does not build; nothing was staged
  4  `--notify require`, and no host that serves the staging directory answered
  5  the host refused a plugin";

/// A failure that has an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// One of the constants of this module.
    pub code: u8,
    /// What failed.
    pub message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Turns how a command ended into the process's exit code, and says why it failed.
pub(crate) fn report(result: anyhow::Result<u8>) -> ExitCode {
    let code = match result {
        Ok(code) => code,
        Err(error) => {
            note(format_args!("{ERROR}error:{ERROR:#} {}", sentence(&error)));
            error
                .chain()
                .find_map(|cause| cause.downcast_ref::<Failure>())
                .map_or(FAILURE, |failure| failure.code)
        }
    };
    match output::lost() {
        Some(error) if code == OK => {
            // Where that was the place for messages, the code must do.
            note(format_args!(
                "{ERROR}error:{ERROR:#} failed to write what was done: {error}"
            ));
            FAILURE.into()
        }
        _ => code.into(),
    }
}

const ERROR: anstyle::Style = anstyle::AnsiColor::Red.on_default().bold();

/// The error and its causes, each once: some errors of libraries tell their cause themselves.
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

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
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
