//! The source of a configuration, from which it can be read again.

use std::{fmt, path::PathBuf};

use super::{Config, ConfigError};

type Read = dyn Fn() -> Result<Config, ConfigError> + Send + Sync;

/// The source of a configuration.
pub(crate) struct Source {
    /// The file, if there is one.
    pub(crate) file: Option<PathBuf>,
    pub(crate) read: Box<Read>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}
