//! What commands that call a plugin have in common: the request, and the media types around it.

use std::{
    fs,
    io::{self, Read as _},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::Args;

/// A request, and what the caller says of it and of the reply.
#[derive(Args, Debug)]
pub(super) struct Request {
    /// File that holds the request; `-` is standard input [default: an empty request]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Media type of the request
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) content_type: String,
    /// Media types accepted for the reply, as in HTTP: `application/json, text/*;q=0.5`
    #[arg(
        long,
        value_name = "TYPES",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) accept: String,
}

impl Request {
    pub(super) fn read(&self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match &self.input {
            None => {}
            Some(path) if path.as_os_str() == "-" => {
                io::stdin()
                    .lock()
                    .read_to_end(&mut bytes)
                    .context("failed to read the request from standard input")?;
            }
            Some(path) => {
                bytes = fs::read(path)
                    .with_context(|| format!("failed to read the request `{}`", path.display()))?;
            }
        }
        Ok(bytes)
    }
}
