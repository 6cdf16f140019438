//! An announcement, judged field by field, and as JSON and TOML.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{
    BODY_LIMIT, Error,
    check::{Report, dependency},
    inline::{self, refuse_control},
    problems::{Problems, typed},
    release,
};

/// Longest title, in characters.
const TITLE_LIMIT: usize = 200;
/// Longest tag, in characters, and how many there may be.
const TAG_LIMIT: usize = 64;
const TAGS_LIMIT: usize = 64;
/// Longest address, in bytes.
const ADDRESS_LIMIT: usize = 2048;
/// The first moment of the year 1, before which Protobuf has no time.
const FIRST_SECOND: i64 = -62_135_596_800;

/// An announcement that can be generated in a format.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Announcement {
    /// Inline Markdown of one line.
    pub title: String,
    /// Markdown that keeps the rules of the check.
    pub body: String,
    /// When it is published.
    #[serde(serialize_with = "as_text")]
    pub published: Timestamp,
    /// One line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// An IRI that never changes, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Where to read more, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// `Name <mail address>` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authors: Vec<String>,
    /// BCP 47.
    pub language: String,
    /// What only a news item of Gentoo has.
    #[serde(skip_serializing_if = "News::is_nothing")]
    pub news: News,
}

/// What only a news item of Gentoo has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct News {
    /// The part of its name after the date; if empty, it is derived from the title.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Empty for the announcement's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// From 1; 0 counts as 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub revision: u32,
    /// `Name <mail address>` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub translators: Vec<String>,
    /// Who sees it: those who have one of these installed, …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub display_if_installed: Vec<String>,
    /// … one of these architectures …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub display_if_keyword: Vec<String>,
    /// … and one of these profiles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub display_if_profile: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl News {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// The fields as they are written. Values are judged one by one, so that an answer names every
/// field that is wrong.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Fields {
    pub(crate) title: Value,
    pub(crate) body: Value,
    pub(crate) published: Value,
    tags: Value,
    id: Value,
    url: Value,
    authors: Value,
    pub(crate) language: Value,
    news: Value,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NewsFields {
    name: Value,
    title: Value,
    revision: Value,
    translators: Value,
    display_if_installed: Value,
    display_if_keyword: Value,
    display_if_profile: Value,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Announcement {
    /// Judges all fields.
    ///
    /// # Errors
    /// A bad request that names each field with a problem.
    pub(crate) fn judge(fields: Fields) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let it = &mut problems;
        let mut published = None;
        it.required("published", &fields.published, |text| {
            published = Some(time(text)?);
            Ok(String::new())
        });
        let announcement = Self {
            title: it.required("title", &fields.title, title),
            body: body(it, &fields.body),
            published: published.unwrap_or_default(),
            tags: it.optional_list("tags", &fields.tags, tag),
            id: it.optional("id", &fields.id, address),
            url: it.optional("url", &fields.url, web_address),
            authors: it.optional_list("authors", &fields.authors, person),
            language: it.optional("language", &fields.language, language),
            news: News::judge(it, &fields.news),
        };
        if announcement.tags.len() > TAGS_LIMIT {
            let number = announcement.tags.len();
            it.add(
                "tags",
                format_args!("has {number} entries, the limit is {TAGS_LIMIT}"),
            )
        }
        unknown(it, "", &fields.unknown);
        problems.conclude(announcement.with_defaults())
    }

    fn with_defaults(mut self) -> Self {
        if self.language.is_empty() {
            "en".clone_into(&mut self.language);
        }
        self
    }

    /// `YYYY-MM-DD` of its publication in UTC.
    pub fn date(&self) -> String {
        self.published.to_string().chars().take(10).collect()
    }

    pub(crate) fn to_json(&self) -> String {
        // A structure of strings has no way to fail.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        text + "\n"
    }

    pub(crate) fn to_toml(&self) -> Result<String, Error> {
        toml::to_string(self).map_err(|error| Error::Failed(format!("failed to write: {error}")))
    }
}

impl News {
    fn judge(it: &mut Problems, value: &Value) -> Self {
        if value.is_null() {
            return Self::default();
        }
        let fields: NewsFields = match typed(value, "an object") {
            Ok(fields) => fields,
            Err(reason) => return it.add("news", reason),
        };
        let revision = match typed::<Option<u32>>(&fields.revision, "a number from 1") {
            Ok(Some(0)) => it.add("news.revision", "must be a number from 1"),
            Ok(revision) => revision.unwrap_or_default(),
            Err(reason) => it.add("news.revision", reason),
        };
        unknown(it, "news.", &fields.unknown);
        let installed = &fields.display_if_installed;
        Self {
            revision,
            name: it.optional("news.name", &fields.name, short_name),
            title: it.optional("news.title", &fields.title, title),
            translators: it.optional_list("news.translators", &fields.translators, person),
            display_if_installed: it.optional_list(
                "news.display_if_installed",
                installed,
                |text| dependency::judge(text).map(|()| text.to_owned()),
            ),
            display_if_keyword: it.optional_list(
                "news.display_if_keyword",
                &fields.display_if_keyword,
                |text| dependency::judge_keyword(text).map(|()| text.to_owned()),
            ),
            display_if_profile: it.optional_list(
                "news.display_if_profile",
                &fields.display_if_profile,
                |text| dependency::judge_profile(text).map(|()| text.to_owned()),
            ),
        }
    }
}

fn unknown(it: &mut Problems, prefix: &str, fields: &Map<String, Value>) {
    for field in fields.keys() {
        it.add::<()>(&format!("{prefix}{field}"), "is unknown");
    }
}

fn title(text: &str) -> Result<String, String> {
    let title = inline::paragraph(text)?;
    let signs = title.chars().count();
    if signs > TITLE_LIMIT {
        return Err(format!(
            "has {signs} characters, the limit is {TITLE_LIMIT}"
        ));
    }
    release::fit(&format!("# {title}\n"))?;
    Ok(title)
}

/// Judged below a title, whose lines are not counted.
fn body(it: &mut Problems, value: &Value) -> String {
    let text = it.required("body", value, |text| {
        if text.trim().is_empty() {
            return Err("is empty".to_owned());
        }
        if text.len() > BODY_LIMIT {
            return Err(format!(
                "has {} bytes, the limit is {BODY_LIMIT}",
                text.len()
            ));
        }
        Ok(text.replace("\r\n", "\n"))
    });
    let text = text.trim_start_matches('\n').trim_end();
    if text.is_empty() {
        return String::new();
    }
    if let Err(reason) = refuse_no_character(text) {
        it.add("body", reason)
    }
    let report = Report::of(format!("# 0.0.0\n\n{text}\n").as_bytes());
    for violation in report.violations {
        let (line, rule) = (violation.line.saturating_sub(2), violation.rule);
        it.add(
            "body",
            format_args!("line {line}: {rule}: {}", violation.message),
        )
    }
    format!("{text}\n")
}

/// Control characters are a rule of the check, which knows their lines.
fn refuse_no_character(text: &str) -> Result<(), String> {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    refuse_control(&text, &[])
}

fn time(text: &str) -> Result<Timestamp, String> {
    let whole = match release::is_day(text) {
        Some(true) => format!("{text}T00:00:00Z"),
        _ => text.to_owned(),
    };
    let is_time = |time: &Timestamp| time.as_second() >= FIRST_SECOND;
    whole.parse().ok().filter(is_time).ok_or_else(|| {
        format!(
            "must be a time with its offset (RFC 3339) or a day of the calendar as `YYYY-MM-DD`, \
             found {text:?}"
        )
    })
}

/// One line of text without marks.
pub(crate) fn line(text: &str, limit: usize) -> Result<String, String> {
    refuse_control(text, &[])?;
    let text = text.trim();
    let signs = text.chars().count();
    if signs == 0 {
        Err("is empty".to_owned())
    } else if signs > limit {
        Err(format!("has {signs} characters, the limit is {limit}"))
    } else {
        Ok(text.to_owned())
    }
}

fn tag(text: &str) -> Result<String, String> {
    line(text, TAG_LIMIT)
}

/// An IRI: what it means is not judged, only that it can stand anywhere.
fn address(text: &str) -> Result<String, String> {
    let text = line(text, ADDRESS_LIMIT)?;
    let (scheme, rest) = text.split_once(':').unwrap_or_default();
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme
        || rest.is_empty()
        || text.contains(|c: char| c.is_whitespace() || "<>\"\\^`{|}".contains(c))
    {
        return Err(format!(
            "must be an address such as `https://example.org/1`, found {text:?}"
        ));
    }
    Ok(text)
}

fn web_address(text: &str) -> Result<String, String> {
    let address = address(text)?;
    let is_web = ["https://", "http://"]
        .iter()
        .any(|scheme| address.starts_with(scheme) && address.len() > scheme.len());
    is_web
        .then_some(address)
        .ok_or_else(|| format!("must begin with `https://` or `http://`, found {text:?}"))
}

fn person(text: &str) -> Result<String, String> {
    let text = line(text, TITLE_LIMIT)?;
    if dependency::is_person(&text) {
        Ok(text)
    } else {
        Err(format!("must be `Name <mail@example.org>`, found {text:?}"))
    }
}

fn language(text: &str) -> Result<String, String> {
    if dependency::is_language(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "must be a language tag such as `en` or `zh-CN`, found {text:?}"
        ))
    }
}

fn short_name(text: &str) -> Result<String, String> {
    dependency::judge_short_name(text).map(|()| text.to_owned())
}
