//! Manual pages and shell completions of `hotmerge-announce`, for packagers.
//!
//! Invariant: both are made from the command line itself.
//!
//! Absent on purpose: text of their own.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::Shell;

use crate::output;

const PROGRAM: &str = "hotmerge-announce";

/// Write the manual pages into a directory
#[derive(Args)]
pub(crate) struct Man {
    /// An existing directory
    dir: PathBuf,
}

/// Print completions for a shell
#[derive(Args)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Man {
    pub(crate) fn run(self, command: Command) -> Result<bool> {
        let to = self.dir.display();
        clap_mangen::generate_to(command, &self.dir)
            .with_context(|| format!("failed to write manual pages into `{to}`"))?;
        Ok(true)
    }
}

impl Completions {
    pub(crate) fn run(self, mut command: Command) {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, PROGRAM, &mut text);
        output::print(&text);
    }
}
