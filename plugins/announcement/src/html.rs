//! An announcement as a page. Nothing in it runs, and nothing of it is loaded from elsewhere but images
//! that the text names.

use pulldown_cmark::{Event, Tag, TagEnd, html::push_html};
use quick_xml::escape::escape;

use crate::{Announcement, markdown};

/// The whole page.
pub(crate) fn document(announcement: &Announcement) -> String {
    let language = escape(&announcement.language);
    let title = markdown::bare(&announcement.title);
    let (time, date) = (announcement.published, announcement.date());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"{language}\" dir=\"auto\">\n<head>\n<meta charset=\"utf-8\">\n\
         <title>{}</title>\n</head>\n<body>\n<article>\n<h1>{}</h1>\n\
         <p><time datetime=\"{time}\">{date}</time></p>\n",
        escape(&title),
        inline(&announcement.title),
    );
    page.push_str(&body(announcement));
    if !announcement.url.is_empty() {
        let url = escape(&announcement.url);
        page.push_str(&format!("<p><a href=\"{url}\">{url}</a></p>\n"));
    }
    if !announcement.tags.is_empty() {
        page.push_str("<ul>\n");
        for tag in &announcement.tags {
            page.push_str(&format!("<li>{}</li>\n", escape(tag)));
        }
        page.push_str("</ul>\n");
    }
    page + "</article>\n</body>\n</html>\n"
}

/// The body alone.
pub(crate) fn body(announcement: &Announcement) -> String {
    let mut html = String::new();
    push_html(&mut html, markdown::events(&announcement.body));
    html
}

/// A line of Markdown without the paragraph around it.
fn inline(line: &str) -> String {
    let is_inline = |event: &Event<'_>| {
        !matches!(
            event,
            Event::Start(Tag::Paragraph) | Event::End(TagEnd::Paragraph)
        )
    };
    let mut html = String::new();
    push_html(&mut html, markdown::events(line).filter(is_inline));
    html
}
