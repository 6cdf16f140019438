//! Field values as Markdown: text of one paragraph, whose inline marks (`code`, links,
//! emphasis) work and which can start nothing else, wherever a template puts it.

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use crate::check::markdown_options;

/// Each pass escapes all the raw HTML that it sees; what that uncovers needs another one.
const ESCAPE_PASSES: usize = 8;

/// Turns `text` into one line of Markdown that is a paragraph.
///
/// Line breaks and runs of blanks become one space. A mark at the start that would make a
/// heading, list, quote or rule gets a backslash before it, and so does raw HTML.
///
/// # Errors
/// Text that is empty, has control characters, a code block or several paragraphs: a
/// sentence that goes on from the field's name.
pub(crate) fn paragraph(text: &str) -> Result<String, String> {
    refuse_control(text, &['\n', '\r', '\t'])?;
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.lines().any(|line| line.trim_ascii().is_empty()) {
        return Err("has several paragraphs, but must be one".to_owned());
    }
    if Parser::new_ext(text, markdown_options())
        .any(|event| matches!(event, Event::Start(Tag::CodeBlock(_))))
    {
        return Err(
            "has a code block: write `code` within the text, or put commands into \
             `upgrade_commands`"
                .to_owned(),
        );
    }
    let line = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    escape(line).ok_or_else(|| "cannot be written as one paragraph of Markdown".to_owned())
}

/// Puts `code` into a fence that nothing in it can close.
///
/// # Errors
/// Text that is empty or has control characters.
pub(crate) fn fenced(code: &str) -> Result<String, String> {
    let code = code.replace("\r\n", "\n");
    refuse_control(&code, &['\n', '\t'])?;
    let code = code.trim_matches('\n');
    if code.trim_ascii().is_empty() {
        return Err("is empty".to_owned());
    }
    let longest = code
        .split(|c| c != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    let fence = "`".repeat(usize::max(3, longest + 1));
    Ok(format!("{fence}sh\n{code}\n{fence}"))
}

pub(crate) fn refuse_control(text: &str, allowed: &[char]) -> Result<(), String> {
    let is_refused = |c: &char| (c.is_control() || MARKS.contains(c)) && !allowed.contains(c);
    match text.chars().find(is_refused) {
        // At the beginning of a document it would say how that is encoded.
        Some(c @ '\u{feff}') => Err(format!("has the byte order mark U+{:04X}", c as u32)),
        Some(c) if MARKS.contains(&c) => {
            Err(format!("has U+{:04X}, which is not a character", c as u32))
        }
        Some(c) => Err(format!("has the control character U+{:04X}", c as u32)),
        None => Ok(()),
    }
}

/// The byte order mark, and the noncharacters that Unicode reserves and XML forbids.
const MARKS: &[char] = &['\u{feff}', '\u{fffe}', '\u{ffff}'];

fn escape(mut line: String) -> Option<String> {
    for _ in 0..ESCAPE_PASSES {
        if !is_paragraph(&line) {
            let mark = line.find(|c: char| c.is_ascii_punctuation())?;
            line.insert(mark, '\\');
        }
        let html = raw_html(&line);
        if html.is_empty() && is_paragraph(&line) {
            return Some(line);
        }
        line = with_backslashes(&line, &html);
    }
    None
}

/// `line` with a backslash at each of `offsets`, which ascend.
fn with_backslashes(line: &str, offsets: &[usize]) -> String {
    let mut escaped = String::with_capacity(line.len() + offsets.len());
    let mut done = 0;
    for &offset in offsets {
        escaped.push_str(&line[done..offset]);
        escaped.push('\\');
        done = offset;
    }
    escaped.push_str(&line[done..]);
    escaped
}

/// Whether `line` is one paragraph, both alone and right under a line of text (where `===`
/// would make a heading of it).
fn is_paragraph(line: &str) -> bool {
    let one = |text: &str| {
        let mut depth = 0_usize;
        let mut blocks = Vec::new();
        for event in Parser::new_ext(text, markdown_options()) {
            match event {
                Event::Start(tag) => {
                    if depth == 0 {
                        blocks.push(tag.to_end());
                    }
                    depth += 1;
                }
                Event::End(_) => depth -= 1,
                Event::Rule => return false,
                _ => {}
            }
        }
        blocks == [TagEnd::Paragraph]
    };
    one(line) && one(&format!("text\n{line}"))
}

fn raw_html(line: &str) -> Vec<usize> {
    Parser::new_ext(line, markdown_options())
        .into_offset_iter()
        .filter(|(event, _)| matches!(event, Event::InlineHtml(_) | Event::Html(_)))
        .map(|(_, range)| range.start)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{fenced, paragraph};

    #[test]
    fn inline_marks_stay_and_block_marks_are_escaped() {
        for (text, markdown) in [
            ("plain text", "plain text"),
            (
                "`code`, *stress* and [a link](https://example.org)",
                "`code`, *stress* and [a link](https://example.org)",
            ),
            ("wrapped\n  over\r\nlines", "wrapped over lines"),
            ("two\n# lines", "two # lines"),
            ("# heading", "\\# heading"),
            ("#[derive] works", "#[derive] works"),
            ("- item", "\\- item"),
            ("- - item", "\\- - item"),
            ("+", "\\+"),
            ("1. first", "1\\. first"),
            ("12) twelfth", "12\\) twelfth"),
            ("> quote", "\\> quote"),
            ("---", "\\---"),
            ("===", "\\==="),
            ("* * *", "\\* * *"),
            ("[a]: https://example.org", "\\[a]: https://example.org"),
            ("[^1]: note", "\\[^1]: note"),
            (
                "a Vec<String> of <b>x</b>",
                "a Vec\\<String> of \\<b>x\\</b>",
            ),
            ("<h4>deep</h4>", "\\<h4>deep\\</h4>"),
            ("<!-- away -->", "\\<!-- away -->"),
            ("<https://example.org> stays", "<https://example.org> stays"),
            ("`<h4>` stays", "`<h4>` stays"),
        ] {
            assert_eq!(paragraph(text).as_deref(), Ok(markdown), "{text}");
        }
    }

    #[test]
    fn anything_but_one_paragraph_is_refused() {
        for (text, reason) in [
            ("", "is empty"),
            (" \n ", "is empty"),
            ("one\n\ntwo", "several paragraphs"),
            ("use\n```\ncode\n```", "code block"),
            ("~~~", "code block"),
            ("bell \u{7}", "U+0007"),
            ("nul \0", "U+0000"),
            ("\u{feff}mark", "byte order mark"),
            ("\u{ffff}", "not a character"),
        ] {
            let refused = paragraph(text).unwrap_err();
            assert!(refused.contains(reason), "{text:?}: {refused}");
        }
    }

    #[test]
    fn a_fence_is_longer_than_what_it_holds() {
        assert_eq!(fenced("a\r\n\r\nb\n").unwrap(), "```sh\na\n\nb\n```");
        assert_eq!(fenced("```\n````").unwrap(), "`````sh\n```\n````\n`````");
        assert!(fenced("\n \n").is_err());
        assert!(fenced("\u{1b}[1m").is_err());
    }
}
