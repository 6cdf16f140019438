//! The operator's configuration: the templates.

use std::path::PathBuf;

use hotmerge_announcement::{Error, Templates, read_file};
use serde::Deserialize;

/// The configuration as it is written: at most one of the first two fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    template: Option<String>,
    template_file: Option<PathBuf>,
    templates: Vec<PathBuf>,
}

impl Config {
    /// Reads the configuration; `{}` is the shipped templates.
    ///
    /// # Errors
    /// Anything but a JSON object with the known fields.
    pub fn from_json(config: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(config)
            .map_err(|error| Error::BadRequest(format!("the configuration is refused: {error}")))
    }

    /// All templates. One that is given alone is for releases in English.
    ///
    /// # Errors
    /// Two templates for one thing, and everything that is wrong with each.
    pub fn templates(self) -> Result<Templates, Error> {
        let mut templates = Templates::default();
        templates.add_files(&self.templates)?;
        let (origin, text) = match (self.template, self.template_file) {
            (Some(_), Some(_)) => {
                let reason =
                    "the configuration has both `template` and `template_file`: keep one of them";
                return Err(Error::Failed(reason.to_owned()));
            }
            (Some(text), None) => ("template".to_owned(), text),
            (None, Some(path)) => (path.display().to_string(), read_file(&path)?),
            (None, None) => return Ok(templates),
        };
        templates.add(&format!("{}.en", Templates::RELEASE), &origin, text)?;
        Ok(templates)
    }
}
