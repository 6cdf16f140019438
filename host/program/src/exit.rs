//! Exit codes. They are part of the interface: scripts and service managers read them.

use std::{fmt, process::ExitCode};

use hotmerge_observe::log::plain;

/// Something failed that has no code of its own.
pub(crate) const FAILURE: u8 = 1;
// 2 is clap's, for wrong usage.
/// The configuration or the plugin directory cannot be used.
pub(crate) const CONFIG: u8 = 3;
/// No host runs in the runtime directory.
pub(crate) const NO_HOST: u8 = 4;
/// A plugin was refused, or does not verify, or a package cannot be used.
pub(crate) const REFUSED: u8 = 5;
/// Another host runs in the runtime directory.
pub(crate) const OTHER_HOST: u8 = 6;
/// Not permitted.
pub(crate) const DENIED: u8 = 7;
/// The plugin answered a call with an error.
pub(crate) const CALL_FAILED: u8 = 8;

/// The codes, for `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  success
  1  failure
  2  wrong usage
  3  the configuration or the plugin directory cannot be used
  4  no host is running
  5  a plugin was refused or does not verify, or a package cannot be used
  6  another host is running on this runtime directory
  7  not permitted
  8  the plugin answered the call with an error";

/// A failure and its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            error: error.into(),
        }
    }

    pub(crate) fn text(code: u8, text: impl fmt::Display) -> Self {
        Self::new(code, anyhow::anyhow!("{text}"))
    }

    /// Adds what to do next.
    pub(crate) fn advise(mut self, advice: &str) -> Self {
        self.error = anyhow::anyhow!("{:#}; {advice}", self.error);
        self
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(FAILURE, error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may be a plugin's word. Some errors have more than one line.
        let text = format!("{:#}", self.error);
        let lines: Vec<_> = text.split('\n').map(plain).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(failure.code)
    }
}
