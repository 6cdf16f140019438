//! `hotmerge hash`: the identity of plugin files.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use hotmerge_meta::Image;
use serde_json::json;

use crate::{
    exit::{self, CommandError},
    output,
};

/// Print the hash of what the dynamic loader maps from a file.
///
/// Stripping or splitting off debug information does not change it; changing one instruction
/// does.
#[derive(Args, Debug)]
pub(super) struct Hash {
    /// Shared objects
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

impl Hash {
    pub(super) fn run(self) -> Result<(), CommandError> {
        for path in &self.files {
            let bytes =
                fs::read(path).with_context(|| format!("failed to read `{}`", path.display()))?;
            let image = Image::normalise(bytes).map_err(|error| {
                CommandError::text(exit::REFUSED, format!("`{}`: {error}", path.display()))
            })?;
            if self.json {
                output::print_json(&json!({
                    "file": path,
                    "hash": image.digest(),
                    "size": image.len(),
                    "machine": image.machine().to_string(),
                }))?;
            } else {
                output::print(format_args!("{}  {}\n", image.digest(), path.display()));
            }
        }
        Ok(())
    }
}
