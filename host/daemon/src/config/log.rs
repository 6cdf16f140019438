//! How much of its log a host keeps in memory: the section `log` of its configuration.
//!
//! Absent on purpose: the log, which belongs to the embedding program.

use serde::Deserialize;

/// How much of its log a host keeps in memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LogConfig {
    /// The most records; 0 keeps none.
    pub records: usize,
    /// The most bytes, approximately.
    pub bytes: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            records: 4096,
            bytes: 4 << 20,
        }
    }
}
