//! Strict versions, and where an announcement names one.
//!
//! A number with dots is usually not a version of the product (`HTTP/1.1`, `Rust 1.95`), so only
//! these places are looked at: all words of a level-1 heading; in deeper headings the first
//! word and the one after "version"; and the value of a line that is labelled `Version:` or
//! `Minimum version:`, of Go too and in Chinese, or stands under a heading of that name.

use semver::Version;

const LABELS: [&str; 8] = [
    "version",
    "minimum version",
    "go version",
    "minimum go version",
    "版本",
    "最低版本",
    "go 版本",
    "最低 go 版本",
];

/// What may follow the numbers of a version without a separator, as in `1.2rc1`.
const SUFFIXES: [&str; 8] = ["alpha", "beta", "rc", "pre", "dev", "post", "a", "b"];

/// Whether `text` is three numbers without leading zeros and nothing else.
pub fn is_strict(text: &str) -> bool {
    Version::parse(text).is_ok_and(|version| version.pre.is_empty() && version.build.is_empty())
}

/// The sentence about a version that is not strict.
pub fn expected(found: &str) -> String {
    format!(
        "expected a version `x.y.z` (three numbers without leading zeros, nothing before or \
         after), found `{found}`"
    )
}

/// The words of a heading that name a version which is not strict.
pub fn in_heading(level: u8, text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut labelled = false;
    for (index, word) in words(text).enumerate() {
        let version = if labelled && starts_like_version(word) {
            Some(word)
        } else if level == 1 {
            after_name(word)
        } else {
            (index == 0)
                .then_some(word)
                .filter(|word| is_version_like(word))
        };
        found.extend(version.filter(|version| !is_strict(version)));
        labelled = word.eq_ignore_ascii_case("version");
    }
    found
}

/// The version that a line such as `Minimum version: 1.2` names, if it is not strict.
pub fn in_line(text: &str) -> Option<&str> {
    let (label, value) = text.split_once([':', '：'])?;
    is_label(label).then(|| value_of(value))?
}

/// The version that `text`, the value of a label, starts with, if it is not strict.
pub fn value_of(text: &str) -> Option<&str> {
    words(text)
        .next()
        .filter(|word| starts_like_version(word) && !is_strict(word))
}

/// Whether `text` says that a version comes next.
pub fn is_label(text: &str) -> bool {
    let text = text.trim();
    LABELS.iter().any(|label| label.eq_ignore_ascii_case(text))
}

/// Words without the punctuation round them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
        .filter(|word| !word.is_empty())
}

/// The part of a word that looks like a version: all of it, or what comes after the name in
/// `hotmerge-1.2` and `hotmerge@1.2`.
fn after_name(word: &str) -> Option<&str> {
    if is_version_like(word) {
        return Some(word);
    }
    word.match_indices(['-', '@'])
        .map(|(at, _)| &word[at + 1..])
        .find(|rest| is_version_like(rest))
}

fn starts_like_version(word: &str) -> bool {
    without_v(word).starts_with(|c: char| c.is_ascii_digit())
}

/// Whether a word can only be meant as a version: `1.2`, `v2`, `01.2.3`, `1.2.3-rc.1`,
/// `1.2rc1`, `1.x`; not `2026-11-22`, `1.5x` or `V8`.
fn is_version_like(word: &str) -> bool {
    if !starts_like_version(word) {
        return false;
    }
    let end = word
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '.')
        .unwrap_or(word.len());
    let (numbers, rest) = word.split_at(end);
    let mut parts = without_v(numbers).split('.');
    let first_is_number = parts.next().is_some_and(is_number);
    let rest_count = parts.clone().count();
    let dotted = rest_count > 0 && parts.all(is_part);
    let short = word.starts_with('v') && rest_count == 0 && rest.is_empty();
    first_is_number && (dotted || short)
}

/// A part after the first dot: a number, a wildcard, or a number with a known suffix.
fn is_part(part: &str) -> bool {
    let letters = part.trim_start_matches(|c: char| c.is_ascii_digit());
    let suffix = letters.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits_first = letters.len() < part.len();
    (digits_first && suffix.is_empty())
        || part.eq_ignore_ascii_case("x")
        || SUFFIXES
            .iter()
            .any(|known| known.eq_ignore_ascii_case(suffix))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn without_v(word: &str) -> &str {
    word.strip_prefix(['v', 'V']).unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::{in_heading, in_line, is_strict};

    #[test]
    fn strict_versions() {
        for version in ["0.0.0", "1.2.3", "10.20.30", "18446744073709551615.0.0"] {
            assert!(is_strict(version), "{version}");
        }
        for version in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "v1.2.3",
            "01.2.3",
            "1.02.3",
            "1.2.3-rc.1",
            "1.2.3+5",
            "1.2.3_p1",
            " 1.2.3",
            "1.2.3 ",
            "1.2.x",
            "１.2.3",
            "99999999999999999999.0.0",
        ] {
            assert!(!is_strict(version), "{version}");
        }
    }

    #[test]
    fn titles_name_versions() {
        for (title, found) in [
            ("hotmerge 1.2.3", &[][..]),
            ("hotmerge v1.2.3", &["v1.2.3"]),
            ("hotmerge (1.2)", &["1.2"]),
            ("hotmerge-1.2 is out", &["1.2"]),
            ("hotmerge-1.2.3 is out", &[]),
            ("hotmerge@v1.2.3", &["v1.2.3"]),
            ("hotmerge 1.2.3-rc.1", &["1.2.3-rc.1"]),
            ("hotmerge 1.2.3_p1", &["1.2.3_p1"]),
            ("hotmerge 1.2rc1, 1.2.x and v3", &["1.2rc1", "1.2.x", "v3"]),
            ("hotmerge, version 2", &["2"]),
            ("Release of 2026-11-22", &[]),
            ("1.5x faster, 3.5GHz, V8, HTTP/1.1, utf-8, x86-64, 42", &[]),
            ("Changelog", &[]),
        ] {
            assert_eq!(in_heading(1, title), found, "{title}");
        }
    }

    #[test]
    fn deeper_headings_name_versions_in_fewer_places() {
        for (heading, found) in [
            ("0.1.0 - 2026-11-22", &[][..]),
            ("[0.1] - 2026-11-22", &["0.1"]),
            ("[v0.1.0]", &["v0.1.0"]),
            ("Version 1.2", &["1.2"]),
            ("Works with Rust 1.95", &[]),
            ("Unreleased", &[]),
            ("2026-11-22", &[]),
        ] {
            assert_eq!(in_heading(2, heading), found, "{heading}");
        }
    }

    #[test]
    fn labelled_lines_name_versions() {
        for (line, found) in [
            ("Minimum version: 1.2.3", None),
            ("minimum VERSION : v1.2.3", Some("v1.2.3")),
            ("Minimum version: >= 2", Some("2")),
            ("Version: 1.2.3.", None),
            ("Version: 01.2.3", Some("01.2.3")),
            ("Minimum version: none", None),
            ("Raises the minimum version of Rust: 1.95", None),
            ("Works with version 1.2", None),
            ("Go version: 1.26", Some("1.26")),
            ("Minimum Go version: 1.26.0", None),
            ("最低 Go 版本：v1.2.3", Some("v1.2.3")),
            ("版本: 01.2.3", Some("01.2.3")),
            ("最低版本：1.2.3", None),
        ] {
            assert_eq!(in_line(line), found, "{line}");
        }
    }
}
