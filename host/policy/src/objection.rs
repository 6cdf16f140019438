//! What speaks against a plugin.
//!
//! Invariant: it names the symbol or the part of the file, and the rule.

use std::fmt;

use serde::Serialize;

/// One reason against a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Objection {
    /// The symbol, library or part of the file.
    pub subject: String,
    /// The rule that it breaks.
    pub rule: String,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.subject, self.rule)
    }
}
