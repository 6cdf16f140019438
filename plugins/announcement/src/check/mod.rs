//! Checks an announcement's bytes against the rules of its format. Every violation is found, not
//! only the first, and each has a line.
//!
//! Absent on purpose: Markdown parsing. `pulldown-cmark` decides what is a
//! heading, a fence or code, and where.

mod characters;
pub(crate) mod dependency;
mod entry;
mod html;
pub(crate) mod news;
mod structure;
pub(crate) mod version;

use std::fmt;

use pulldown_cmark::Options;
use serde::{Serialize, Serializer};

use crate::{Choice, Error, Format, Request, Templates};

/// The rule that a violation breaks. The names are stable: programs select by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The bytes are not UTF-8.
    Utf8,
    /// A byte order mark comes first.
    Bom,
    /// A control character that does not belong in text.
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
    /// A header of a news item that is missing, unknown, misplaced or wrong.
    NewsHeader,
    /// The title of a news item is empty or too long.
    NewsTitle,
    /// A restriction of a news item that matches nobody, or is not one.
    NewsDisplay,
    /// The body of a news item is empty, or has lines that readers misread.
    NewsBody,
    /// A line of a news item is too wide.
    NewsColumns,
    /// The name of a news item's file.
    NewsName,
    /// An entry of a feed that is not well-formed, or lacks something.
    Entry,
    /// An input of `generate` that cannot be used.
    Input,
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
            Self::NewsHeader => "news-header",
            Self::NewsTitle => "news-title",
            Self::NewsDisplay => "news-display",
            Self::NewsBody => "news-body",
            Self::NewsColumns => "news-columns",
            Self::NewsName => "news-name",
            Self::Entry => "atom-entry",
            Self::Input => "input",
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
    /// The rule that is broken.
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
    /// Checks a document in Markdown.
    pub fn of(document: &[u8]) -> Self {
        Self::of_text(document, structure::check)
    }

    /// Checks a news item, and the name of its file if there is one.
    pub fn of_news(document: &[u8], name: Option<&str>) -> Self {
        Self::of_text(document, |text, violations| {
            news::check(text, violations);
            if let Some(name) = name {
                news::check_name(name, text, violations);
            }
        })
    }

    /// Checks a document in the format that a media type names; in Markdown if there is none. Its
    /// parameter `name` is the name of the file.
    ///
    /// # Errors
    /// A media type without known rules.
    pub fn of_type(document: &[u8], content_type: Option<&str>) -> Result<Self, Error> {
        let choice = match content_type {
            None => Choice::of(Format::Markdown),
            Some(content_type) => Choice::named(content_type)?,
        };
        Ok(match choice.format {
            Format::Markdown => Self::of(document),
            Format::News => Self::of_news(document, choice.name.as_deref()),
            Format::Atom => Self::of_text(document, entry::check),
            Format::Html | Format::Text => Self::of_text(document, |_, _| {}),
            Format::Json | Format::Toml | Format::Protobuf => {
                Self::of_input(document, content_type)
            }
        })
    }

    fn of_input(document: &[u8], content_type: Option<&str>) -> Self {
        let mut violations = Vec::new();
        if let Err(error) = Request::read(document, content_type, &Templates::default()) {
            let reasons = error.to_string();
            violations.extend(reasons.lines().map(|reason| Violation {
                line: 1,
                rule: Rule::Input,
                message: reason.to_owned(),
            }));
        }
        Self::from(violations)
    }

    fn of_text(document: &[u8], rules: impl FnOnce(&str, &mut Vec<Violation>)) -> Self {
        let mut violations = Vec::new();
        if let Some(text) = characters::text(document, &mut violations) {
            rules(&text, &mut violations);
        }
        Self::from(violations)
    }

    fn from(mut violations: Vec<Violation>) -> Self {
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
