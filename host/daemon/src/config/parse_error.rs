//! What is wrong with the text of a configuration, and where.
//!
//! Absent on purpose: how that is found.

use std::fmt;

/// What is wrong with the text of a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", .place.map_or_else(String::new, |place| format!("{place}: ")))]
pub struct ParseError {
    /// Where, if it is known.
    pub place: Option<Place>,
    /// What, in a sentence.
    pub reason: String,
}

/// A place in a text, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}
