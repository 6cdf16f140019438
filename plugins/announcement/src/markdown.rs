//! Markdown as the other formats see it: events without raw HTML.

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd};

use crate::check::markdown_options;

/// Schemes of links that are safe to follow.
const SCHEMES: &[&str] = &["https:", "http:", "mailto:"];

/// The events of a document. Raw HTML is text, and links lead only to the web and to mail.
pub(crate) fn events(text: &str) -> impl Iterator<Item = Event<'_>> {
    // A list of tasks is a list with marks in most formats.
    let options = markdown_options() - Options::ENABLE_TASKLISTS;
    Parser::new_ext(text, options).map(|event| match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        // Inside are texts of raw HTML, which become a paragraph.
        Event::Start(Tag::HtmlBlock) => Event::Start(Tag::Paragraph),
        Event::End(TagEnd::HtmlBlock) => Event::End(TagEnd::Paragraph),
        Event::Start(Tag::Link {
            link_type,
            dest_url,
            title,
            id,
        }) => Event::Start(Tag::Link {
            link_type,
            dest_url: safe(dest_url),
            title,
            id,
        }),
        Event::Start(Tag::Image {
            link_type,
            dest_url,
            title,
            id,
        }) => Event::Start(Tag::Image {
            link_type,
            dest_url: safe(dest_url),
            title,
            id,
        }),
        other => other,
    })
}

fn safe(address: CowStr<'_>) -> CowStr<'_> {
    let has_scheme = |scheme: &&str| {
        address
            .get(..scheme.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    };
    // A place in the document itself, or below the page.
    let is_relative = !address.contains(':');
    if is_relative || SCHEMES.iter().any(has_scheme) {
        address
    } else {
        CowStr::Borrowed("")
    }
}

/// A line of inline Markdown without its marks.
pub(crate) fn bare(line: &str) -> String {
    let mut text = String::new();
    for event in events(line) {
        match event {
            Event::Text(part) | Event::Code(part) => text.push_str(&part),
            Event::SoftBreak | Event::HardBreak => text.push(' '),
            _ => {}
        }
    }
    text
}

/// The title of a document and the text below it. The check has found the title.
pub(crate) fn split_title(document: &str) -> Option<(String, String)> {
    let mut inside = None;
    for (event, range) in Parser::new_ext(document, markdown_options()).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { .. }) => inside = Some(range.clone()),
            Event::End(TagEnd::Heading(_)) => {
                let heading = inside?;
                let line = document[heading.clone()].lines().next()?;
                let title = line.trim_start_matches('#').trim().to_owned();
                return Some((title, document[heading.end..].trim().to_owned()));
            }
            _ => {}
        }
    }
    None
}
