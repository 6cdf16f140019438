//! `hotmerge man`: manual pages.

mod configuration;

use std::{fs, path::PathBuf};

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
        let page = self.dir.join(configuration::PAGE);
        clap_mangen::generate_to(command, &self.dir)
            .and_then(|()| fs::write(page, configuration::page()))
            .with_context(|| {
                format!("failed to write manual pages into `{}`", self.dir.display())
            })?;
        Ok(())
    }
}
