//! The configuration of a running host, and its replacement.
//!
//! Absent on purpose: the place of the file, which the embedding program knows.

use std::{path::PathBuf, sync::PoisonError};

use hotmerge_meta::control::ConfigReport;

use super::Host;
use crate::{Config, ConfigError, config::source::Source};

impl Host {
    /// Puts another configuration in force while the host runs: all of it, or nothing if it is
    /// wrong. Only plugins whose settings differ start again, by the ordinary switch with their
    /// state. The report names the keys that wait for a restart of the host. It does not wait for the
    /// plugins.
    ///
    /// # Errors
    /// What is wrong with it; the previous one stays in force.
    pub fn reconfigure(&self, new: Config) -> Result<ConfigReport, ConfigError> {
        // The embedding program gets them in the order in which they take effect.
        let _one = self
            .reconfiguring
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let change = self.supervisor.reconfigure(new)?;
        if let Some(task) = self.at_configuration.get() {
            task(&self.config());
        }
        Ok(ConfigReport {
            file: self.source.get().and_then(|source| source.file.clone()),
            refused: None,
            needs_restart: change.needs_restart,
            restarted: change.restarted,
        })
    }

    /// Runs a task of the embedding program with every configuration that takes effect from now on, to put in
    /// force what the host knows nothing of. It must be quick. Only the first call has an effect.
    pub fn at_every_configuration(&self, task: impl Fn(&Config) + Send + Sync + 'static) {
        // A second one would be of the same program.
        let _ = self.at_configuration.set(Box::new(task));
    }

    /// Sets how, and from which file, the configuration is read again when a request or a signal asks for
    /// it. The file is named to other processes: let its path be absolute. Only the first call has an effect.
    pub fn read_config_by(
        &self,
        file: Option<PathBuf>,
        read: impl Fn() -> Result<Config, ConfigError> + Send + Sync + 'static,
    ) {
        // A second one would be of the same program.
        let _ = self.source.set(Source {
            file,
            read: Box::new(read),
        });
    }

    /// Reads the configuration again and puts it in force if it is valid.
    pub fn reread_config(&self) -> ConfigReport {
        let source = self.source.get();
        let Some(Source { file, read }) = source else {
            return ConfigReport {
                refused: Some(
                    "the embedding program does not let this host read its configuration again"
                        .to_owned(),
                ),
                ..ConfigReport::default()
            };
        };
        let done = read().and_then(|new| self.reconfigure(new));
        done.unwrap_or_else(|error| {
            let reason = error.to_string();
            self.supervisor.refuse_config(&reason);
            ConfigReport {
                file: file.clone(),
                refused: Some(reason),
                ..ConfigReport::default()
            }
        })
    }
}
