//! Headings and preformatted code that hide in raw HTML.
//!
//! The Markdown parser passes raw HTML through. Only the names of opening tags
//! matter here, so this looks for those and skips comments; it is not an HTML parser.

/// How far the text of a heading is looked for, in bytes, so that a document of nothing but
/// tags is still read in one pass.
const LONGEST_HEADING: usize = 1024;

/// The element that a tag opens.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// `<h1>` to `<h6>`, with the text up to the next closing tag.
    Heading {
        /// 1 to 6.
        level: u8,
        /// Empty if the heading ends outside of this piece of HTML, or is very long.
        text: &'a str,
    },
    /// `<pre>`.
    Preformatted,
}

/// The tags of interest in `html`, with their offsets.
pub fn opened(html: &str) -> Vec<(usize, Opened<'_>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(offset) = html[at..].find('<') {
        let start = at + offset;
        let rest = &html[start..];
        if rest.starts_with("<!--") {
            let Some(length) = rest.find("-->") else {
                break;
            };
            at = start + length;
            continue;
        }
        if let Some(tag) = tag(&rest[1..]) {
            found.push((start, tag));
        }
        at = start + 1;
    }
    found
}

/// The tag whose name `rest` starts with. Looks at a few bytes only, whatever follows.
fn tag(rest: &str) -> Option<Opened<'_>> {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/');
    match rest.as_bytes() {
        [b'p' | b'P', b'r' | b'R', b'e' | b'E', end, ..] if ends(end) => Some(Opened::Preformatted),
        [b'h' | b'H', digit @ b'1'..=b'6', end, ..] if ends(end) => Some(Opened::Heading {
            level: digit - b'0',
            text: content(&rest[2..rest.floor_char_boundary(LONGEST_HEADING)]),
        }),
        _ => None,
    }
}

/// The text between a tag's end and the next closing tag.
fn content(rest: &str) -> &str {
    rest.split_once('>')
        .and_then(|(_, content)| content.split_once("</"))
        .map_or("", |(text, _)| text)
}
