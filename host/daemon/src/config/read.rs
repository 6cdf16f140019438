//! Reads a configuration, and says where in the file something is wrong.
//!
//! Invariant: a message about the contents of a file names line and column and, for an unknown name, the
//! most similar known one.
//!
//! Absent on purpose: what a value means.

use std::path::Path;

use hotmerge_instance::rules::text_file::{self, TextFileError};
use hotmerge_meta::Trust;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config, ConfigError,
    parse_error::{ParseError, Place},
    similar::similar,
};

/// Its name in messages.
const WHAT: &str = "configuration";

impl Config {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// One sentence that names the file, the line and the column.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |trust: &Trust| -> Result<Self, ConfigError> {
            let text = text_file::read(WHAT, path, trust)?;
            let wrong = |error: ParseError| TextFileError::Wrong {
                what: WHAT,
                path: path.to_owned(),
                reason: error.to_string(),
            };
            Ok(Self::parse(&text).map_err(wrong)?)
        };
        let trust = Trust::by_default();
        let config = read(&trust)?;
        // Only the file itself says whether untrusted files are refused.
        if trust.is_anybody() && !config.trust().is_anybody() {
            return read(&config.trust());
        }
        Ok(config)
    }

    /// Reads the text of a configuration.
    ///
    /// # Errors
    /// Where it is wrong, and how.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let config: Self = toml::from_str(text).map_err(|error| not_toml(text, &error))?;
        match config.check_with_plugins() {
            Ok(()) => Ok(config),
            Err(wrong) => Err(ParseError {
                place: find(text, &wrong.key).map(|offset| place(text, offset)),
                reason: wrong.to_string(),
            }),
        }
    }
}

fn not_toml(text: &str, error: &toml::de::Error) -> ParseError {
    let reason = match nearest(error.message()) {
        Some((what, known)) => format!("{what}; did you mean `{known}`?"),
        None => error.message().trim_end().replace('\n', ", "),
    };
    let offset = error.span().map(|span| span.start);
    let reason = match offset.and_then(|offset| key_at(text, offset)) {
        Some(key) => format!("`{key}`: {reason}"),
        None => reason,
    };
    let place = offset.map(|offset| place(text, offset));
    ParseError { place, reason }
}

/// The key of the value at this offset, if the text is TOML.
fn key_at(text: &str, offset: usize) -> Option<String> {
    let table = DeTable::parse(text).ok()?;
    in_table(table.get_ref(), offset).map(|path| path.join("."))
}

fn in_table(table: &DeTable<'_>, offset: usize) -> Option<Vec<String>> {
    table.iter().find_map(|(name, value)| {
        let mut path = in_value(value, offset)?;
        path.insert(0, name.get_ref().to_string());
        Some(path)
    })
}

fn in_value(value: &Spanned<DeValue<'_>>, offset: usize) -> Option<Vec<String>> {
    let inner = match value.get_ref() {
        DeValue::Table(table) => in_table(table, offset),
        DeValue::Array(values) => values.iter().find_map(|value| in_value(value, offset)),
        _ => None,
    };
    inner.or_else(|| (value.span().start == offset).then(Vec::new))
}

/// The unknown name of a message, and the most similar one that the message lists. Serde writes such
/// messages for every type: "unknown field `a`, expected one of `b`, `c`".
fn nearest(message: &str) -> Option<(&str, &str)> {
    let (what, list) = message.split_once(", expected ")?;
    let unknown = quoted(what)
        .next()
        .filter(|_| what.starts_with("unknown "))?;
    Some((what, similar(unknown, quoted(list))?))
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The byte offset of a key's value. A key may name an entry of an array, as in `log.sink[1].name`.
fn find(text: &str, key: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut table = table.get_ref();
    let mut offset = None;
    for part in key.split('.') {
        let (name, entry) = match part.strip_suffix(']').and_then(|it| it.split_once('[')) {
            Some((name, number)) => (name, number.parse::<usize>().ok()),
            None => (part, None),
        };
        let mut value = table.get(name)?;
        if let (Some(entry), DeValue::Array(entries)) = (entry, value.get_ref()) {
            value = entries.get(entry)?;
        }
        offset = Some(value.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    offset
}

fn place(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let begin = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before[begin..].chars().count() + 1;
    Place { line, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_answered_with_the_nearest() {
        for (text, reason) in [
            (
                "drian_ms = 1",
                "line 1, column 1: unknown field `drian_ms`; did you mean `drain_ms`?",
            ),
            (
                "\n[plugin.x]\n  alow = []\n",
                "line 3, column 3: unknown field `alow`; did you mean `allow`?",
            ),
            (
                "isolation = \"proces\"",
                "line 1, column 13: `isolation`: unknown variant `proces`; did you mean `process`?",
            ),
            (
                "[[door.allow]]\nuser = 1\nrole = \"amdin\"",
                "line 3, column 8: `door.allow.role`: unknown variant `amdin`; did you mean `admin`?",
            ),
        ] {
            assert_eq!(Config::parse(text).unwrap_err().to_string(), reason);
        }
        let far = Config::parse("zzz = 1").unwrap_err().to_string();
        assert!(far.contains("expected one of `plugin_dir`"), "{far}");
    }

    #[test]
    fn a_wrong_value_is_located() {
        for (text, place) in [
            (
                "drain_ms = \"ä\"",
                "line 1, column 12: `drain_ms`: invalid type",
            ),
            (
                "# ä\nkeep_versions = 0",
                "line 2, column 17: `keep_versions`",
            ),
            (
                "\n[plugin.x]\nuser = 0",
                "line 3, column 8: `plugin.x.user`",
            ),
            (
                "[restart]\nmost = 1\nwithin_s = 9999999999999",
                "line 3, column 12: `restart.within_s`",
            ),
            (
                "drain_ms = 1\ndrain_ms = 2",
                "line 2, column 1: duplicate key",
            ),
            ("[", "line 1, column 2: "),
            (
                "[[door.allow]]\nuser = \"no such user\"",
                "line 2, column 8: `door.allow.user`: this system has no user",
            ),
        ] {
            let refused = Config::parse(text).unwrap_err().to_string();
            assert!(refused.starts_with(place), "{text}: {refused}");
        }
    }
}
