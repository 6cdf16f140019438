//! A value of the configuration that is refused.
//!
//! Absent on purpose: its place in a text, which `read` finds by the key.

use std::fmt;

/// A value of the configuration that is refused. As text, the key and what is wrong form a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {reason}")]
pub struct WrongValue {
    /// The whole key; it may name an entry of an array, as in `log.sink[1].name`.
    pub key: String,
    /// What is wrong, beginning with a verb.
    pub reason: String,
}

impl WrongValue {
    /// What is wrong with the value of a key.
    pub fn new(key: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self {
            key: key.to_string(),
            reason: reason.to_string(),
        }
    }

    /// The same of a key within a section or an entry.
    pub(super) fn within(self, section: impl fmt::Display) -> Self {
        Self {
            key: format!("{section}.{}", self.key),
            ..self
        }
    }
}
