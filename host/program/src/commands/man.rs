//! `hotmerge man`: manual pages.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command};

use crate::exit::CommandError;

/// Write the manual pages into a directory.
#[derive(Args, Debug)]
pub(super) struct Man {
    /// Existing directory
    dir: PathBuf,
}

impl Man {
    pub(super) fn run(self, command: Command) -> Result<(), CommandError> {
        clap_mangen::generate_to(command, &self.dir).with_context(|| {
            format!("failed to write manual pages into `{}`", self.dir.display())
        })?;
        Ok(())
    }
}
