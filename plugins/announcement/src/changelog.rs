//! A section of a changelog as <https://keepachangelog.com> wants it: the Markdown parser finds the
//! headings of level 2, and `## [1.2.3] - 2026-11-22` names version and day.

use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};
use serde_json::{Map, Value, json};

use crate::{Error, check::markdown_options, check::version, release::is_day};

struct Section<'a> {
    version: String,
    day: Option<String>,
    body: &'a str,
}

/// Title, body and day of the section of a version, or of the newest one that has a version.
///
/// # Errors
/// No such section, with those that there are; a heading without a day.
pub(crate) fn section(
    text: &str,
    wanted: Option<&str>,
    name: Option<&str>,
) -> Result<Map<String, Value>, Error> {
    let sections = sections(text);
    let found = match wanted {
        Some(wanted) => sections.iter().find(|section| section.version == wanted),
        None => sections
            .iter()
            .find(|section| version::is_strict(&section.version)),
    };
    let Some(section) = found else {
        let versions: Vec<_> = sections
            .iter()
            .map(|section| &section.version[..])
            .collect();
        return Err(Error::BadRequest(format!(
            "the changelog has no section `{}`; there are `{}`",
            wanted.unwrap_or("## [x.y.z] - YYYY-MM-DD"),
            versions.join("`, `")
        )));
    };
    let title = match name {
        Some(name) => format!("{name} {}", section.version),
        None => section.version.clone(),
    };
    let mut fields = Map::new();
    fields.insert("title".to_owned(), json!(title));
    fields.insert("body".to_owned(), json!(section.body.trim()));
    if let Some(day) = &section.day {
        fields.insert("published".to_owned(), json!(day));
    }
    Ok(fields)
}

fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let (mut begin, mut heading) = (0, None);
    for (event, range) in Parser::new_ext(text, markdown_options()).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) if level <= HeadingLevel::H2 => {
                if let Some(last) = sections.last_mut() {
                    last.body = &text[begin..range.start.max(begin)];
                }
                heading = (level == HeadingLevel::H2).then(String::new);
            }
            Event::Text(part) | Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&part);
                }
            }
            Event::End(TagEnd::Heading(level)) if level <= HeadingLevel::H2 => {
                begin = range.end;
                if let Some(heading) = heading.take() {
                    sections.push(named(&heading, &text[range.end..]));
                }
            }
            _ => {}
        }
    }
    sections
}

fn named<'a>(heading: &str, body: &'a str) -> Section<'a> {
    let mut words = heading.split_whitespace();
    let version = words.next().unwrap_or_default();
    Section {
        version: version.trim_matches(['[', ']']).to_owned(),
        day: words
            .find(|word| is_day(word) == Some(true))
            .map(str::to_owned),
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::section;

    const CHANGELOG: &str = "# Changelog\n\n## [Unreleased]\n\n- soon\n\n## [1.2.0] - 2026-11-22\n\n\
        ### Added\n\n- a\n\n## 1.1.0 - 2026-10-01\n\nold\n";

    #[test]
    fn a_section_is_found_by_its_version() {
        let newest = section(CHANGELOG, None, Some("tool")).unwrap();
        assert_eq!(newest["title"], "tool 1.2.0");
        assert_eq!(newest["body"], "### Added\n\n- a");
        assert_eq!(newest["published"], "2026-11-22");
        let old = section(CHANGELOG, Some("1.1.0"), None).unwrap();
        assert_eq!(
            (&old["title"], &old["body"]),
            (&"1.1.0".into(), &"old".into())
        );
        let unreleased = section(CHANGELOG, Some("Unreleased"), None).unwrap();
        assert!(unreleased.get("published").is_none());
    }

    #[test]
    fn a_missing_section_names_those_there_are() {
        let refused = section(CHANGELOG, Some("2.0.0"), None)
            .unwrap_err()
            .to_string();
        assert_eq!(
            refused,
            "the changelog has no section `2.0.0`; there are `Unreleased`, `1.2.0`, `1.1.0`"
        );
    }
}
