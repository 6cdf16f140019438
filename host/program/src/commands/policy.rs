//! `hotmerge policy`: what is in force, as data.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hotmerge_instance::rules::policies::{self, Kind};

use super::host::configuration;
use crate::{
    exit::{self, CommandError},
    output,
};

/// Print a policy: the built-in one, or the one that a configuration names.
///
/// To change it, save the output to a file, edit it and configure the file as `syscall_policy`
/// or `symbol_policy`.
#[derive(Args, Debug)]
pub(super) struct Policy {
    /// Which policy
    which: Which,
    /// Configuration file (TOML) that names the policy
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// System calls that sandboxed plugins may make
    Syscalls,
    /// Symbols that plugins may import
    Symbols,
}

impl Policy {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let kind = match self.which {
            Which::Syscalls => Kind::Syscalls,
            Which::Symbols => Kind::Symbols,
        };
        let text = policies::text(&configuration(self.config.as_deref())?.policy_files(), kind)
            .map_err(|error| CommandError::new(exit::CONFIG, error))?;
        output::print(text);
        Ok(())
    }
}
