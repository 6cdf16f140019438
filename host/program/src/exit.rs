//! Exit codes. They are part of the interface: scripts and service managers read them.

use std::{fmt, process::ExitCode};

use hotmerge_meta::plain;

/// Something failed that has no code of its own.
pub(crate) const FAILURE: u8 = 1;
/// Wrong usage.
pub(crate) const USAGE: u8 = 2;
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
/// The plugin answered a call with an error, or ended during it.
pub(crate) const CALL_FAILED: u8 = 8;
/// No such plugin takes calls.
pub(crate) const NO_PLUGIN: u8 = 9;
/// The plugin has no such method.
pub(crate) const NO_METHOD: u8 = 10;
/// The plugin panicked during a call.
pub(crate) const PANICKED: u8 = 11;
/// A call's deadline passed, or the host did not answer in time.
pub(crate) const DEADLINE: u8 = 12;
/// A call's request or reply does not fit into a frame.
pub(crate) const TOO_LARGE: u8 = 13;

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
   8  call: the plugin answered with an error, or ended during the call
   9  call: no such plugin is running
  10  call: the plugin has no such method
  11  call: the plugin panicked
  12  the deadline of a call passed, or the host did not answer in time
  13  call: the request or the reply does not fit into a frame of 16 MiB

If output cannot be written (a full disk), a command still does all its other work; if
nothing else failed, it exits with 1. A closed pipe is not a failure.";

/// A failure and its exit code.
#[derive(Debug)]
pub(crate) struct CommandError {
    code: u8,
    error: anyhow::Error,
}

impl CommandError {
    pub(crate) fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            error: error.into(),
        }
    }

    pub(crate) fn text(code: u8, text: impl fmt::Display) -> Self {
        Self::new(code, anyhow::anyhow!("{text}"))
    }

    /// What the process will exit with.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// Wrong usage; `text` is clap's, with its colours.
    pub(crate) fn usage(text: String) -> Self {
        Self {
            code: USAGE,
            error: anyhow::anyhow!(text),
        }
    }

    /// Adds what to do next.
    pub(crate) fn advise(mut self, advice: &str) -> Self {
        self.error = anyhow::anyhow!("{}; {advice}", chain(&self.error));
        self
    }

    /// The text for standard error.
    pub(crate) fn report(&self) -> String {
        match self.code {
            USAGE => self.error.to_string(),
            _ => format!("hotmerge: {self}\n"),
        }
    }
}

/// An error and its causes. Many errors name their cause in their own words already; that cause
/// is not repeated.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text.clone_from(&cause);
        } else if !last.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        last = cause;
    }
    text
}

impl<E: Into<anyhow::Error>> From<E> for CommandError {
    fn from(error: E) -> Self {
        Self::new(FAILURE, error)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may be a plugin's word. Some errors have more than one line.
        let text = chain(&self.error);
        let lines: Vec<_> = text.split('\n').map(plain).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl From<CommandError> for ExitCode {
    fn from(failure: CommandError) -> Self {
        Self::from(failure.code)
    }
}
