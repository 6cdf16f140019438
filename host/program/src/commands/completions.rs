//! `hotmerge completions`: shell completions.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::{exit::Failure, output};

/// Print shell completions.
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// Shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, mut command: Command) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "hotmerge", &mut script);
        Ok(output::write(&script)?)
    }
}
