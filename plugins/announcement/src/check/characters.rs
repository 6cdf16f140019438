//! What comes before Markdown: encoding, byte order mark, control characters.

use std::borrow::Cow;

use super::{Rule, Violation};

/// The document as text for the rules that follow, without its byte order mark and with a
/// replacement character for each byte sequence that is not UTF-8, so that lines stay what
/// they are. `None` if it is in another encoding, where all the rest would be noise.
pub fn text<'a>(document: &'a [u8], violations: &mut Vec<Violation>) -> Option<Cow<'a, str>> {
    if let [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] = document {
        violations.push(Violation {
            line: 1,
            rule: Rule::Utf8,
            message: "the document is UTF-16: convert it to UTF-8 without a byte order mark"
                .to_owned(),
        });
        return None;
    }
    let body = document.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(document);
    if body.len() < document.len() {
        violations.push(Violation {
            line: 1,
            rule: Rule::Bom,
            message: "the document starts with a byte order mark: remove its 3 bytes".to_owned(),
        });
    }
    for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
        judge(index + 1, line, violations);
    }
    Some(String::from_utf8_lossy(body))
}

/// At most one violation of each kind per line: the first shows where to look.
fn judge(number: usize, line: &[u8], violations: &mut Vec<Violation>) {
    let mut add = |rule, message| {
        violations.push(Violation {
            line: number,
            rule,
            message,
        });
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if let Err(error) = str::from_utf8(line) {
        let at = error.valid_up_to();
        add(
            Rule::Utf8,
            format!(
                "byte {} of the line, 0x{:02X}, is not UTF-8",
                at + 1,
                line[at]
            ),
        );
    }
    let control = line
        .utf8_chunks()
        .flat_map(|chunk| chunk.valid().chars())
        .find(|c| c.is_control() && *c != '\t');
    match control {
        Some('\r') => add(
            Rule::Control,
            "a carriage return stands without its line feed".to_owned(),
        ),
        Some(c) => add(
            Rule::Control,
            format!(
                "the control character U+{:04X} is not text: remove it",
                c as u32
            ),
        ),
        None => {}
    }
}
