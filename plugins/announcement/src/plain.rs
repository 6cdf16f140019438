//! Markdown as text for mail and terminals: lines of a width, lists with marks, addresses behind what
//! they are the address of.

use std::mem;

use pulldown_cmark::{Event, HeadingLevel, Tag, TagEnd};
use unicode_width::UnicodeWidthStr as _;

use crate::{Announcement, markdown, wrap::wrap};

/// How wide a line is, unless a word is wider.
const COLUMNS: usize = 72;

/// The least room that nested lists and quotes leave to their text.
const LEAST_COLUMNS: usize = 20;

/// A whole announcement.
pub(crate) fn document(announcement: &Announcement) -> String {
    let title = markdown::bare(&announcement.title);
    let mut text = format!("{}\n\n", wrap(&title, COLUMNS).join("\n"));
    text.push_str(&format!("{}\n\n", announcement.date()));
    text.push_str(&body(&announcement.body, COLUMNS));
    if !announcement.url.is_empty() {
        text.push_str(&format!("\n{}\n", announcement.url));
    }
    if !announcement.tags.is_empty() {
        let tags = format!("Tags: {}", announcement.tags.join(", "));
        text.push_str(&format!("\n{}\n", wrap(&tags, COLUMNS).join("\n")));
    }
    text
}

/// A document in lines of at most so many columns. Code is not broken.
pub(crate) fn body(text: &str, columns: usize) -> String {
    let mut writer = Writer {
        columns,
        ..Writer::default()
    };
    for event in markdown::events(text) {
        writer.event(event);
    }
    writer.flush();
    writer.out
}

/// The prefix of a block's lines.
struct Indent {
    /// Before the first line only, until it was used.
    mark: Option<String>,
    rest: String,
}

#[derive(Default)]
struct Writer {
    out: String,
    columns: usize,
    /// The text of the block so far; line feeds are hard breaks.
    text: String,
    indents: Vec<Indent>,
    /// The next number of each list that is open; none for a list with marks.
    lists: Vec<Option<u64>>,
    /// Where the links that are open lead, and where their text begins.
    links: Vec<(String, usize)>,
    code: Option<String>,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                None => self.push(&text),
            },
            Event::Code(text) => self.push(&text),
            Event::SoftBreak => self.text.push(' '),
            Event::HardBreak => self.text.push('\n'),
            Event::Rule => {
                self.block();
                self.text.push_str("* * *");
                self.flush();
            }
            Event::FootnoteReference(name) => self.text.push_str(&format!("[{name}]")),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph | Tag::Heading { .. } | Tag::TableHead | Tag::Table(_) => self.block(),
            Tag::CodeBlock(_) => {
                self.block();
                self.code = Some(String::new());
            }
            Tag::BlockQuote(_) => {
                self.block();
                self.indent("> ", "> ");
            }
            Tag::List(first) => {
                if self.lists.is_empty() {
                    self.block();
                } else {
                    self.flush();
                }
                self.lists.push(first);
            }
            Tag::Item => self.item(),
            Tag::FootnoteDefinition(name) => {
                self.block();
                let mark = format!("[{name}] ");
                let rest = " ".repeat(mark.width());
                self.indent(&mark, &rest);
            }
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.links.push((dest_url.into_string(), self.text.len()));
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let underline = match level {
                    HeadingLevel::H1 => '=',
                    _ => '-',
                };
                let columns = self.text.width().min(self.room());
                if columns > 0 {
                    self.text.push('\n');
                    self.text.extend(std::iter::repeat_n(underline, columns));
                }
                self.flush();
            }
            TagEnd::TableRow | TagEnd::TableHead => {
                let cells = self.text.trim_end_matches(" | ").len();
                self.text.truncate(cells);
                self.flush();
            }
            TagEnd::Paragraph => self.flush(),
            TagEnd::TableCell => self.text.push_str(" | "),
            TagEnd::CodeBlock => self.code(),
            TagEnd::Item | TagEnd::FootnoteDefinition | TagEnd::BlockQuote(_) => {
                self.flush();
                self.indents.pop();
            }
            TagEnd::List(_) => {
                self.flush();
                self.lists.pop();
            }
            TagEnd::Link | TagEnd::Image => {
                let Some((address, begin)) = self.links.pop() else {
                    return;
                };
                let is_shown = self
                    .text
                    .get(begin..)
                    .is_some_and(|text| text.contains(&address));
                if !address.is_empty() && !is_shown {
                    self.push(&format!(" ({address})"));
                }
            }
            _ => {}
        }
    }

    /// Text without characters that terminals or line readers treat as a line break.
    fn push(&mut self, text: &str) {
        let is_break = |sign: char| sign.is_whitespace() && sign != '\u{a0}';
        let blanks = text
            .chars()
            .map(|sign| if is_break(sign) { ' ' } else { sign });
        self.text.extend(blanks);
    }

    fn item(&mut self) {
        self.flush();
        let mark = match self.lists.last_mut() {
            Some(Some(number)) => {
                let mark = format!("{number}. ");
                *number += 1;
                mark
            }
            _ => "* ".to_owned(),
        };
        let rest = " ".repeat(mark.width());
        self.indent(&mark, &rest);
    }

    fn indent(&mut self, mark: &str, rest: &str) {
        self.indents.push(Indent {
            mark: Some(mark.to_owned()),
            rest: rest.to_owned(),
        });
    }

    /// A new block begins: with a blank line before it, but not right behind a mark.
    fn block(&mut self) {
        self.flush();
        let is_behind_mark = self
            .indents
            .last()
            .is_some_and(|indent| indent.mark.is_some());
        if !self.out.is_empty() && !is_behind_mark && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    fn prefix(&mut self) -> String {
        self.indents
            .iter_mut()
            .map(|indent| indent.mark.take().unwrap_or_else(|| indent.rest.clone()))
            .collect()
    }

    fn room(&self) -> usize {
        let indent: usize = self.indents.iter().map(|indent| indent.rest.width()).sum();
        self.columns.saturating_sub(indent).max(LEAST_COLUMNS)
    }

    fn line(&mut self, text: &str) {
        let prefix = self.prefix();
        let line = format!("{prefix}{text}");
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    fn flush(&mut self) {
        let text = mem::take(&mut self.text);
        if text.trim().is_empty() {
            return;
        }
        let room = self.room();
        for part in text.trim().split('\n') {
            let words: Vec<_> = part.split(' ').filter(|word| !word.is_empty()).collect();
            for line in wrap(&words.join(" "), room) {
                self.line(&line);
            }
        }
    }

    fn code(&mut self) {
        let code = self.code.take().unwrap_or_default();
        for line in code.trim_end_matches('\n').split('\n') {
            let line: String = line
                .replace('\t', "    ")
                .chars()
                .map(|sign| {
                    if matches!(sign, '\u{2028}' | '\u{2029}') {
                        ' '
                    } else {
                        sign
                    }
                })
                .collect();
            self.line(&format!("    {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::body;

    #[test]
    fn markdown_becomes_text() {
        let markdown = "Text with `code`, *stress* and\na [link](https://example.org/a).\n\n\
            ## Heading\n\n- one\n- two\n  - nested item that is longer than a line may be here\n\n\
            3. third\n4. fourth\n\n> quoted\n\n```sh\ntrue &&\n\tfalse\n```\n\n<b>html</b>\n\n| a | b |\n|---|---|\n| 1 | 2 |\n";
        let text = "Text with code, stress and a link\n(https://example.org/a).\n\nHeading\n-------\n\n\
            * one\n* two\n  * nested item that is longer than a line\n    may be here\n\n\
            3. third\n4. fourth\n\n> quoted\n\n    true &&\n        false\n\n<b>html</b>\n\na | b\n1 | 2\n";
        assert_eq!(body(markdown, 44), text);
    }
}
