//! The template: compiled and tried out once, then rendered.
//!
//! The engine is `upon`, because it keeps no thread-locals: `minijinja`'s compiler has two
//! with destructors, which would keep this library mapped after it was unloaded.

use hotmerge_sdk::Error;
use upon::Engine;

use crate::{check::Report, release::Release};

const NAME: &str = "template";

/// A compiled template which has shown that it renders well-formed announcements.
#[derive(Debug)]
pub struct Template {
    engine: Engine<'static>,
}

impl Template {
    /// Compiles `text` and renders two releases with it, one with every field and one with
    /// as few as possible. `origin` says in messages where the text comes from.
    ///
    /// # Errors
    /// A template that is malformed, names unknown fields, or renders what breaks the format.
    pub fn compile(origin: String, text: String) -> Result<Self, Error> {
        let refuse = |reason| Error::Failed(format!("the template is refused: {origin}{reason}"));
        let template = Self::load(text.clone()).map_err(|error| refuse(located(&error, &text)))?;
        for release in [full(), bare()] {
            let markdown = template
                .fill(&release)
                .map_err(|error| refuse(located(&error, &text)))?;
            let report = Report::of(markdown.as_bytes());
            if !report.ok {
                return Err(refuse(format!(
                    ": what it renders breaks the format:\n{report}\nof\n{markdown}"
                )));
            }
        }
        Ok(template)
    }

    /// The announcement of `release`, as Markdown that passes the check.
    ///
    /// # Errors
    /// What the template cannot do with this release, or the violations by line.
    pub fn render(&self, release: &Release) -> Result<String, String> {
        let markdown = self
            .fill(release)
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

    fn fill(&self, release: &Release) -> Result<String, upon::Error> {
        self.engine
            .template(NAME)
            .render_from(&release.to_value())
            .to_string()
    }
}

/// `:LINE: reason` for a template error.
///
/// The engine tells the line in its long form only, and counts characters there where it
/// means bytes. So the template is tried again with every byte that is not ASCII replaced.
fn located(error: &upon::Error, text: &str) -> String {
    let ascii: String = text
        .bytes()
        .map(|byte| if byte.is_ascii() { byte as char } else { 'x' })
        .collect();
    let again = match Template::load(ascii) {
        Err(again) => Some(again),
        Ok(template) => [full(), bare()]
            .iter()
            .find_map(|release| template.fill(release).err()),
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

/// A release with nothing but what every release has.
fn bare() -> Release {
    Release {
        name: "name".to_owned(),
        version: "1.2.3".to_owned(),
        date: "2026-11-22".to_owned(),
        minimum_version: "1.0.0".to_owned(),
        ..Release::default()
    }
}
