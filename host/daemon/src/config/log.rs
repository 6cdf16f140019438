//! How much of its log a host keeps in memory: the section `log` of its configuration.
//!
//! Absent on purpose: the log, which is the program's around the host.

use serde::Deserialize;

/// How much of its log a host keeps in memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LogConfig {
    /// Records; 0 keeps none.
    pub records: usize,
    /// Bytes, about.
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
