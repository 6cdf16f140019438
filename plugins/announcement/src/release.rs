//! The request of `render`: a release as JSON, checked field by field.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    Error,
    check::{Report, version},
    inline,
    problems::Problems,
};

/// A release whose texts are ready to be put into Markdown.
#[derive(Debug, Default)]
pub struct Release {
    /// The product's name, inline Markdown.
    pub name: String,
    /// Strict `x.y.z`.
    pub version: String,
    /// `YYYY-MM-DD`, a day that exists.
    pub date: String,
    /// Strict `x.y.z`: the oldest version that this release works with.
    pub minimum_version: String,
    /// One paragraph, or empty.
    pub summary: String,
    /// Inline Markdown each.
    pub features: Vec<String>,
    /// Inline Markdown each.
    pub fixes: Vec<String>,
    /// Inline Markdown each; empty says that none are known.
    pub known_issues: Vec<String>,
    /// Inline Markdown each.
    pub upgrade_notes: Vec<String>,
    /// A fenced code block, or empty.
    pub upgrade_commands: String,
}

/// The request as it is written. Values are judged one by one, so that an answer names
/// every field that is wrong.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Request {
    name: Value,
    version: Value,
    date: Value,
    minimum_version: Value,
    summary: Value,
    features: Value,
    fixes: Value,
    known_issues: Value,
    upgrade_notes: Value,
    upgrade_commands: Value,
}

impl Release {
    /// Reads a request.
    ///
    /// # Errors
    /// A bad request that names each field with a problem, a line each.
    pub fn from_json(request: &[u8]) -> Result<Self, Error> {
        let request: Request = serde_json::from_slice(request)
            .map_err(|error| Error::bad_request(format!("the request is refused: {error}")))?;
        Self::judge(&request)
    }

    /// Reads a release inside another request.
    pub(crate) fn from_value(value: Value) -> Result<Self, Error> {
        let request: Request = serde_json::from_value(value)
            .map_err(|error| Error::bad_request(format!("`release` is refused: {error}")))?;
        Self::judge(&request)
    }

    fn judge(request: &Request) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let it = &mut problems;
        // An empty list of issues means "none known"; leaving it out must not say that.
        let release = Self {
            name: it.required("name", &request.name, name),
            version: it.required("version", &request.version, strict),
            date: it.required("date", &request.date, date),
            minimum_version: it.required("minimum_version", &request.minimum_version, strict),
            summary: it.optional("summary", &request.summary, text),
            features: it.required_list("features", &request.features, text),
            fixes: it.optional_list("fixes", &request.fixes, text),
            known_issues: it.required_list("known_issues", &request.known_issues, text),
            upgrade_notes: it.optional_list("upgrade_notes", &request.upgrade_notes, text),
            upgrade_commands: it.optional(
                "upgrade_commands",
                &request.upgrade_commands,
                inline::fenced,
            ),
        };
        problems.conclude(release)
    }

    /// The names and values that a template sees.
    pub(crate) fn to_value(&self) -> upon::Value {
        upon::Value::from([
            ("name", upon::Value::from(self.name.as_str())),
            ("version", self.version.as_str().into()),
            ("date", self.date.as_str().into()),
            ("minimum_version", self.minimum_version.as_str().into()),
            ("summary", self.summary.as_str().into()),
            ("features", self.features.clone().into()),
            ("fixes", self.fixes.clone().into()),
            ("known_issues", self.known_issues.clone().into()),
            ("upgrade_notes", self.upgrade_notes.clone().into()),
            ("upgrade_commands", self.upgrade_commands.as_str().into()),
        ])
    }
}

fn strict(text: &str) -> Result<String, String> {
    if version::is_strict(text) {
        Ok(text.to_owned())
    } else {
        Err(version::expected(text))
    }
}

fn date(text: &str) -> Result<String, String> {
    if is_day(text).unwrap_or(false) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "must be a day of the calendar as `YYYY-MM-DD`, found {text:?}"
        ))
    }
}

/// Whether `text` is a day exactly as `YYYY-MM-DD`; `None` if it is far from it.
///
/// The calendar is the date library's. Its parser reads much more than days, and would add
/// 180 KB to the plugin.
pub(crate) fn is_day(text: &str) -> Option<bool> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let (year, month, day) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    jiff::civil::Date::new(year, month, day).ok()?;
    // Signs, blanks and missing zeros do not come back the same.
    Some(format!("{year:04}-{month:02}-{day:02}") == text)
}

fn name(text: &str) -> Result<String, String> {
    let name = inline::paragraph(text)?;
    fit(&format!("# {name} 0.0.0\n"))?;
    Ok(name)
}

fn text(text: &str) -> Result<String, String> {
    let text = inline::paragraph(text)?;
    fit(&format!("# 0.0.0\n\n- {text}\n"))?;
    Ok(text)
}

/// Judges a value in the place where it will stand, so that the field is named and not a
/// line of something that the caller has never seen.
pub(crate) fn fit(document: &str) -> Result<(), String> {
    match Report::of(document.as_bytes()).violations.first() {
        Some(violation) => Err(format!(
            "breaks the rule `{}`: {}",
            violation.rule, violation.message
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Release;
    use crate::Error;

    fn sample() -> Value {
        serde_json::from_str(include_str!("../samples/release.json")).unwrap()
    }

    fn refused(request: &Value) -> String {
        match Release::from_json(request.to_string().as_bytes()) {
            Err(Error::BadRequest(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let reason = refused(&json!({
            "name": 7, "version": "v1.2.3", "date": "2026-02-30", "features": ["fine", "", 3],
            "known_issues": "none", "upgrade_notes": [null], "summary": "a\n\nb",
        }));
        let lines: Vec<_> = reason.lines().collect();
        let expected = [
            "`name` must be a string",
            "`version` ",
            "`date` must be a day",
            "`minimum_version` is missing",
            "`summary` has several paragraphs",
            "`features[1]` is empty",
            "`features[2]` must be a string",
            "`known_issues` must be a list of strings",
            "`upgrade_notes[0]` is missing",
        ];
        assert_eq!(lines.len(), expected.len(), "{reason}");
        for (line, start) in lines.iter().zip(expected) {
            assert!(line.starts_with(start), "{line} / {start}");
        }
    }

    #[test]
    fn single_values_are_judged() {
        for (field, value, part) in [
            ("version", "1.2", "x.y.z"),
            ("version", "1.2.3-rc.1", "x.y.z"),
            ("version", " 1.2.3", "x.y.z"),
            ("minimum_version", "01.2.3", "x.y.z"),
            ("date", "20261122", "YYYY-MM-DD"),
            ("date", "2026-11-22T10:00", "YYYY-MM-DD"),
            ("date", "2026-11-31", "YYYY-MM-DD"),
            ("date", "+2026-11-22", "YYYY-MM-DD"),
            ("date", "-001-11-22", "YYYY-MM-DD"),
            ("date", "2026-1-22", "YYYY-MM-DD"),
            ("date", "22.11.2026", "YYYY-MM-DD"),
            ("date", "2023-02-29", "YYYY-MM-DD"),
            ("name", "tool v2", "breaks the rule `version`"),
            ("summary", "Version: 2", "breaks the rule `version`"),
            ("upgrade_commands", "", "is empty"),
        ] {
            let mut request = sample();
            request[field] = json!(value);
            let reason = refused(&request);
            assert!(reason.starts_with(&format!("`{field}` ")), "{reason}");
            assert!(reason.contains(part), "{field} {value}: {reason}");
        }
        for date in ["2024-02-29", "2000-02-29"] {
            let mut request = sample();
            request["date"] = json!(date);
            Release::from_json(request.to_string().as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_request_with_unknown_fields_is_refused() {
        let mut request = sample();
        request["tittle"] = json!("x");
        assert!(refused(&request).contains("unknown field `tittle`"));
        for (request, part) in [
            ("", "EOF"),
            ("[]extra", "refused"),
            ("7", "invalid type"),
            ("{\"date\": 1, \"date\": 2}", "duplicate field `date`"),
        ] {
            let Err(Error::BadRequest(reason)) = Release::from_json(request.as_bytes()) else {
                panic!("{request}")
            };
            assert!(reason.contains(part), "{request}: {reason}");
        }
    }
}
