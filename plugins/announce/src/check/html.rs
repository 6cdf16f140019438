//! Headings and preformatted code that hide in raw HTML.
//!
//! The Markdown parser hands raw HTML over as it stands. Only the names of opening tags
//! matter here, so this looks for those and skips comments; it is no HTML parser.

/// What a tag opens.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// `<h1>` to `<h6>`, with the text up to the next closing tag.
    Heading {
        /// 1 to 6.
        level: u8,
        /// Empty if the heading ends outside of this piece of HTML.
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

fn tag(rest: &str) -> Option<Opened<'_>> {
    let end = rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, '>' | '/'))?;
    let (name, rest) = rest.split_at(end);
    if name.eq_ignore_ascii_case("pre") {
        return Some(Opened::Preformatted);
    }
    let level = match name.as_bytes() {
        [b'h' | b'H', digit @ b'1'..=b'6'] => digit - b'0',
        _ => return None,
    };
    let content = rest.split_once('>').map_or("", |(_, content)| content);
    let text = content.split_once("</").map_or("", |(text, _)| text);
    Some(Opened::Heading { level, text })
}
