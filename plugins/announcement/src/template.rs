//! A template: compiled and tried out once, then rendered.
//!
//! The engine is `upon`, because it keeps no thread-locals: `minijinja`'s compiler has two
//! with destructors, which would keep a plugin mapped after it was unloaded.

use upon::{Engine, Value};

use crate::{Announcement, Error, Release, check::Report};

const NAME: &str = "template";

/// The values for a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A release.
    Release,
    /// An announcement that has title and body.
    Announcement,
}

impl Kind {
    /// The samples that it is tried with: one with every field, one with as few as possible.
    fn samples(self) -> [Value; 2] {
        match self {
            Self::Release => [full().to_value(), bare().to_value()],
            Self::Announcement => [
                values(&Announcement {
                    title: "name 1.2.3".to_owned(),
                    body: "text\n".to_owned(),
                    tags: vec!["tag".to_owned(), "tag".to_owned()],
                    url: "https://example.org/".to_owned(),
                    authors: vec!["Name <name@example.org>".to_owned()],
                    language: "en".to_owned(),
                    ..Announcement::default()
                }),
                values(&Announcement {
                    title: "name".to_owned(),
                    body: "text\n".to_owned(),
                    language: "en".to_owned(),
                    ..Announcement::default()
                }),
            ],
        }
    }
}

/// The names and values that a template of announcements sees.
pub(crate) fn values(announcement: &Announcement) -> Value {
    // Tags and people are text, and must stay it between marks of Markdown.
    let text =
        |texts: &[String]| -> Vec<String> { texts.iter().map(|text| escaped(text)).collect() };
    Value::from([
        ("title", Value::from(announcement.title.as_str())),
        ("body", announcement.body.trim_end().into()),
        ("date", announcement.date().into()),
        ("published", announcement.published.to_string().into()),
        ("tags", text(&announcement.tags).into()),
        ("authors", text(&announcement.authors).into()),
        ("url", announcement.url.as_str().into()),
        ("language", announcement.language.as_str().into()),
    ])
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for sign in text.chars() {
        if sign.is_ascii_punctuation() {
            escaped.push('\\');
        }
        escaped.push(sign);
    }
    escaped
}

/// A compiled template which has shown that it renders well-formed announcements.
#[derive(Debug)]
pub(crate) struct Template {
    engine: Engine<'static>,
}

impl Template {
    /// Compiles `text` and renders two samples with it, one with every field and one with
    /// as few as possible. `origin` says in messages where the text comes from.
    ///
    /// # Errors
    /// A template that is malformed, names unknown fields, or renders what breaks the format.
    pub(crate) fn compile(origin: &str, text: String, kind: Kind) -> Result<Self, Error> {
        let refuse = |reason| Error::Failed(format!("the template is refused: {origin}{reason}"));
        let located = |error: &upon::Error| located(error, &text, kind);
        let template = Self::load(text.clone()).map_err(|error| refuse(located(&error)))?;
        for sample in kind.samples() {
            let markdown = template
                .fill(&sample)
                .map_err(|error| refuse(located(&error)))?;
            let report = Report::of(markdown.as_bytes());
            if !report.ok {
                return Err(refuse(format!(
                    ": what it renders breaks the format:\n{report}\nof\n{markdown}"
                )));
            }
        }
        Ok(template)
    }

    /// Renders `values` as Markdown that passes the check.
    ///
    /// # Errors
    /// What the template cannot do with them, or the violations by line.
    pub(crate) fn render(&self, values: &Value) -> Result<String, String> {
        let markdown = self
            .fill(values)
            .map_err(|error| format!("failed to render: {error}"))?;
        let report = Report::of(markdown.as_bytes());
        if report.ok {
            Ok(markdown)
        } else {
            Err(format!(
                "failed to render: the announcement would break the format\n{report}"
            ))
        }
    }

    fn load(text: String) -> Result<Self, upon::Error> {
        let mut engine = Engine::new();
        engine.add_template(NAME, text)?;
        Ok(Self { engine })
    }

    fn fill(&self, values: &Value) -> Result<String, upon::Error> {
        self.engine.template(NAME).render_from(values).to_string()
    }
}

/// `:LINE: reason` for a template error.
///
/// The engine gives the line in its long form only, and counts characters there where it
/// means bytes. So the template is tried again with every byte that is not ASCII replaced.
fn located(error: &upon::Error, text: &str, kind: Kind) -> String {
    let ascii: String = text
        .bytes()
        .map(|byte| if byte.is_ascii() { byte as char } else { 'x' })
        .collect();
    let again = match Template::load(ascii) {
        Err(again) => Some(again),
        Ok(template) => kind
            .samples()
            .iter()
            .find_map(|sample| template.fill(sample).err()),
    };
    let line = again.and_then(|again| {
        let long = format!("{again:#}");
        let (_, place) = long.split_once(&format!("--> {NAME}:"))?;
        let (line, _) = place.split_once(':')?;
        line.parse::<usize>().ok()
    });
    match line {
        Some(line) => format!(":{line}: {error}"),
        None => format!(": {error}"),
    }
}

/// A release in which every field has something to say.
fn full() -> Release {
    let text = || "text".to_owned();
    Release {
        summary: text(),
        features: vec![text(), text()],
        fixes: vec![text()],
        known_issues: vec![text()],
        upgrade_notes: vec![text()],
        upgrade_commands: "```sh\ntrue\n```".to_owned(),
        ..bare()
    }
}

/// A release with only the required fields.
fn bare() -> Release {
    Release {
        name: "name".to_owned(),
        version: "1.2.3".to_owned(),
        date: "2026-11-22".to_owned(),
        minimum_version: "1.0.0".to_owned(),
        ..Release::default()
    }
}
