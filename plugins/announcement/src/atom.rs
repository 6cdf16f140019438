//! An announcement as an entry of an Atom feed (RFC 4287).

use quick_xml::{
    Writer,
    events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event},
};

use crate::{Announcement, Error, html, markdown};

const NAMESPACE: &str = "http://www.w3.org/2005/Atom";

/// The entry as a document.
///
/// # Errors
/// An announcement without an address: no feed reader could tell whether it is new.
pub(crate) fn entry(announcement: &Announcement) -> Result<String, Error> {
    let id = [&announcement.id, &announcement.url]
        .into_iter()
        .find(|address| !address.is_empty());
    let mut missing = Vec::new();
    if id.is_none() {
        missing.push("`id` is missing: an entry of a feed needs `id` or `url`");
    }
    if announcement.authors.is_empty() {
        missing.push("`authors` is missing: an entry of a feed needs one");
    }
    let Some(id) = id.filter(|_| missing.is_empty()) else {
        return Err(Error::BadRequest(missing.join("\n")));
    };
    write(announcement, id)
        .map_err(|error| Error::Failed(format!("failed to write the entry: {error}")))
}

fn write(announcement: &Announcement, id: &str) -> std::io::Result<String> {
    let mut xml = Xml(Writer::new_with_indent(Vec::new(), b' ', 2));
    let language = announcement.language.replace('_', "-");
    xml.0
        .write_event(Event::Decl(BytesDecl::new("1.0", Some("utf-8"), None)))?;
    xml.open("entry", &[("xmlns", NAMESPACE), ("xml:lang", &language)])?;
    xml.text("id", &[], id)?;
    xml.text(
        "title",
        &[("type", "text")],
        &markdown::bare(&announcement.title),
    )?;
    let time = announcement.published.to_string();
    xml.text("published", &[], &time)?;
    xml.text("updated", &[], &time)?;
    for author in &announcement.authors {
        let (name, mail) = author.split_once(" <").unwrap_or((author, ""));
        xml.open("author", &[])?;
        xml.text("name", &[], name)?;
        if let Some(mail) = mail.strip_suffix('>') {
            xml.text("email", &[], mail)?;
        }
        xml.close("author")?;
    }
    if !announcement.url.is_empty() {
        xml.empty("link", &[("rel", "alternate"), ("href", &announcement.url)])?;
    }
    for tag in &announcement.tags {
        xml.empty("category", &[("term", tag)])?;
    }
    xml.text("content", &[("type", "html")], &html::body(announcement))?;
    xml.close("entry")?;
    let text = String::from_utf8(xml.0.into_inner()).map_err(std::io::Error::other)?;
    Ok(text + "\n")
}

type Attributes<'a> = [(&'a str, &'a str)];

struct Xml(Writer<Vec<u8>>);

impl Xml {
    fn open(&mut self, name: &str, attributes: &Attributes<'_>) -> std::io::Result<()> {
        let tag = BytesStart::new(name).with_attributes(attributes.iter().copied());
        self.0.write_event(Event::Start(tag))
    }

    fn empty(&mut self, name: &str, attributes: &Attributes<'_>) -> std::io::Result<()> {
        let tag = BytesStart::new(name).with_attributes(attributes.iter().copied());
        self.0.write_event(Event::Empty(tag))
    }

    fn close(&mut self, name: &str) -> std::io::Result<()> {
        self.0.write_event(Event::End(BytesEnd::new(name)))
    }

    fn text(&mut self, name: &str, attributes: &Attributes<'_>, text: &str) -> std::io::Result<()> {
        self.open(name, attributes)?;
        self.0.write_event(Event::Text(BytesText::new(text)))?;
        self.close(name)
    }
}
