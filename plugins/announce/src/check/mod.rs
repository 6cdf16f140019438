//! Checks an announcement's bytes against the format. Every violation is found, not only
//! the first, and each has a line.
//!
//! Absent on purpose: any Markdown parsing of our own. `pulldown-cmark` says what is a
//! heading, a fence or code, and where.

mod characters;
mod html;
mod structure;
pub mod version;

use std::fmt;

use pulldown_cmark::Options;
use serde::{Serialize, Serializer};

/// What a violation breaks. The names are stable: programs select by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The bytes are not UTF-8.
    Utf8,
    /// A byte order mark comes first.
    Bom,
    /// A control character that has no place in text.
    Control,
    /// No title: the first heading must be of level 1 and say something.
    Title,
    /// A heading is deeper than level 3.
    HeadingDepth,
    /// Code that is not in a fence.
    UnfencedCode,
    /// A fence that nothing closes.
    UnclosedFence,
    /// A version that is not strictly `x.y.z`.
    Version,
}

impl Rule {
    /// The name as people and programs see it.
    fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Bom => "bom",
            Self::Control => "control",
            Self::Title => "title",
            Self::HeadingDepth => "heading-depth",
            Self::UnfencedCode => "unfenced-code",
            Self::UnclosedFence => "unclosed-fence",
            Self::Version => "version",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One violation. Ordered by line, then by rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// Counted from 1.
    pub line: usize,
    /// What is broken.
    pub rule: Rule,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.line, self.rule, self.message)
    }
}

/// What a check found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether there is no violation.
    pub ok: bool,
    /// All of them, by line.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Checks a whole document.
    pub fn of(document: &[u8]) -> Self {
        let mut violations = Vec::new();
        if let Some(text) = characters::text(document, &mut violations) {
            structure::check(&text, &mut violations);
        }
        violations.sort();
        Self {
            ok: violations.is_empty(),
            violations,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.violations
            .iter()
            .try_for_each(|violation| writeln!(f, "{violation}"))
    }
}

/// Markdown as code hosts show it: CommonMark, and of GitHub's extensions those that decide
/// what is a block. Without footnotes, for one, their second paragraph would be code.
pub fn markdown_options() -> Options {
    Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_TASKLISTS
}

#[cfg(test)]
mod cases;
