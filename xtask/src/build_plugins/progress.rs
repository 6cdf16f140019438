//! Shows progress on a terminal; elsewhere the output of what builds suffices.

use std::{
    env,
    io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write as _},
    process::{Command, Stdio},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// Four updates per second look responsive and cost nothing.
const TICK: Duration = Duration::from_millis(250);

/// A spinner below cargo's output.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Self {
                bar: ProgressBar::hidden(),
            };
        }
        let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
        let bar = ProgressBar::new_spinner().with_style(style.expect("the template is a constant"));
        bar.enable_steady_tick(TICK);
        Self { bar }
    }

    pub(super) fn say(&self, message: String) {
        self.bar.set_message(message);
    }

    /// Redirects the messages of `cargo` so that they do not collide with the spinner.
    pub(super) fn prepare(&self, cargo: &mut Command) {
        if self.bar.is_hidden() {
            return;
        }
        cargo.stderr(Stdio::piped());
        let is_decided = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        if !is_decided("NO_COLOR") && !is_decided("CARGO_TERM_COLOR") {
            // Cargo sees a pipe where the user sees a terminal.
            cargo.env("CARGO_TERM_COLOR", "always");
        }
    }

    /// Copies a program's output unchanged until it ends.
    pub(super) fn forward(&self, messages: impl Read) -> io::Result<()> {
        let mut messages = BufReader::new(messages);
        let mut line = Vec::new();
        while messages.read_until(b'\n', &mut line)? > 0 {
            self.bar.suspend(|| io::stderr().write_all(&line))?;
            line.clear();
        }
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
