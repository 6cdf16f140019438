//! The operator's configuration: which template to render with.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use hotmerge_sdk::Error;
use serde::Deserialize;

/// The most bytes that a template may have.
const TEMPLATE_LIMIT: u64 = 64 * 1024;

const DEFAULT_TEMPLATE: &str = include_str!("../templates/announcement.md");

/// The configuration as it is written: at most one of its fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    template: Option<String>,
    template_file: Option<PathBuf>,
}

impl Config {
    /// Reads the configuration; `{}` is the default template.
    ///
    /// # Errors
    /// Anything but a JSON object with the known fields.
    pub fn from_json(config: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(config)
            .map_err(|error| Error::bad_request(format!("the configuration is refused: {error}")))
    }

    /// Where the template comes from, for messages, and its text.
    ///
    /// # Errors
    /// Two templates, or a file that cannot be read, is too large or not UTF-8.
    pub fn template(self) -> Result<(String, String), Error> {
        match (self.template, self.template_file) {
            (Some(_), Some(_)) => Err("the configuration has both `template` and \
                 `template_file`: keep one of them"
                .into()),
            (Some(text), None) => Ok(("template".to_owned(), text)),
            (None, Some(path)) => Ok((path.display().to_string(), read(&path)?)),
            (None, None) => Ok(("default template".to_owned(), DEFAULT_TEMPLATE.to_owned())),
        }
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let refuse = |reason: String| {
        Error::Failed(format!(
            "failed to read the template `{}`: {reason}",
            path.display()
        ))
    };
    if !path.is_absolute() {
        return Err(refuse(
            "`template_file` must be an absolute path, because the host's working directory \
             is not the operator's"
                .to_owned(),
        ));
    }
    let kind = path.metadata().map_err(|error| refuse(error.to_string()))?;
    // Opening a FIFO would wait for a writer.
    if !kind.is_file() {
        return Err(refuse("it is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(TEMPLATE_LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|error| refuse(error.to_string()))?;
    if bytes.len() as u64 > TEMPLATE_LIMIT {
        return Err(refuse(format!("it has more than {TEMPLATE_LIMIT} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        refuse(format!("line {line} is not UTF-8"))
    })
}
