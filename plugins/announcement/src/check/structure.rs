//! Headings, code and versions, as the Markdown parser sees them.

use std::{mem, ops::Range};

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

use super::{
    Rule, Violation,
    html::{self, Opened},
    markdown_options, version,
};

/// The deepest heading that an announcement may have.
const DEEPEST: u8 = 3;

/// Adds the violations in `text` in the order in which they are found.
pub fn check(text: &str, violations: &mut Vec<Violation>) {
    let mut walk = Walk {
        text,
        line_ends: text.match_indices('\n').map(|(at, _)| at).collect(),
        violations,
        titled: false,
        heading: None,
        fence: None,
        line: Line::default(),
        labelled: false,
    };
    for (event, range) in Parser::new_ext(text, markdown_options()).into_offset_iter() {
        walk.event(event, range);
    }
    if !walk.titled {
        let message = "there is no title: the document needs a heading of level 1, `# …`";
        walk.add(0, Rule::Title, message);
    }
}

struct Walk<'a> {
    text: &'a str,
    line_ends: Vec<usize>,
    violations: &'a mut Vec<Violation>,
    /// Whether a heading has been seen: the first one is the title.
    titled: bool,
    heading: Option<Heading>,
    fence: Option<Fence<'a>>,
    line: Line,
    /// Whether the last heading announces a version.
    labelled: bool,
}

/// The heading that is being read.
struct Heading {
    start: usize,
    level: u8,
    empty: bool,
}

/// The fenced block that is being read.
struct Fence<'a> {
    start: usize,
    /// Where the text of the block ends, as far as it has been read.
    text_end: usize,
    /// The run of marks that opens it; one at least as long closes it.
    mark: &'a str,
}

/// The text of the line that is being read, without Markdown's marks.
#[derive(Default)]
struct Line {
    start: usize,
    text: String,
}

impl<'a> Walk<'a> {
    fn event(&mut self, event: Event<'_>, range: Range<usize>) {
        match event {
            Event::Start(tag) => self.start(&tag, range),
            Event::End(tag) => self.end(tag, range),
            Event::Text(_) if self.fence.is_some() => {
                if let Some(fence) = &mut self.fence {
                    fence.text_end = range.end;
                }
            }
            Event::Text(text) | Event::Code(text) => self.push(&text, range.start),
            Event::SoftBreak | Event::HardBreak if self.heading.is_some() => {
                self.line.text.push(' ');
            }
            Event::SoftBreak | Event::HardBreak | Event::Rule => self.end_line(),
            Event::InlineHtml(_) => self.html(range),
            // Read as a whole, from the source, when the block starts.
            Event::Html(_) => {}
            _ => self.not_empty(),
        }
    }

    fn start(&mut self, tag: &Tag<'_>, range: Range<usize>) {
        if is_inline(tag.to_end()) {
            return self.not_empty();
        }
        // Cells of a row are read as one line: `Minimum version | 1.2.3`.
        if matches!(tag, Tag::TableCell) {
            return;
        }
        self.end_line();
        match tag {
            Tag::Heading { level, .. } => {
                self.heading = Some(Heading {
                    start: range.start,
                    level: *level as u8,
                    empty: true,
                });
            }
            Tag::CodeBlock(CodeBlockKind::Indented) => {
                let message = "code must stand in a fence, ``` or ~~~, not be indented";
                self.add(range.start, Rule::UnfencedCode, message);
            }
            Tag::CodeBlock(CodeBlockKind::Fenced(_)) => self.fence = Some(self.open(range)),
            Tag::HtmlBlock => self.html(range),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd, range: Range<usize>) {
        match tag {
            TagEnd::Heading(_) => {
                if let Some(heading) = self.heading.take() {
                    let text = mem::take(&mut self.line.text);
                    self.judge_heading(heading.start, heading.level, &text, heading.empty);
                }
            }
            TagEnd::CodeBlock => {
                if let Some(fence) = self.fence.take() {
                    self.judge_fence(&fence, range.end);
                }
            }
            TagEnd::TableCell => self.line.text.push_str(" : "),
            tag if is_inline(tag) => {}
            _ => self.end_line(),
        }
    }

    fn push(&mut self, text: &str, start: usize) {
        if self.line.text.is_empty() {
            self.line.start = start;
        }
        self.line.text.push_str(text);
        self.not_empty();
    }

    fn not_empty(&mut self) {
        if let Some(heading) = &mut self.heading {
            heading.empty = false;
        }
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.line);
        if line.text.trim().is_empty() {
            return;
        }
        let mut found = version::in_line(&line.text);
        if mem::take(&mut self.labelled) {
            found = found.or_else(|| version::value_of(&line.text));
        }
        if let Some(found) = found {
            self.add(line.start, Rule::Version, version::expected(found));
        }
    }

    fn judge_heading(&mut self, at: usize, level: u8, text: &str, empty: bool) {
        if !mem::replace(&mut self.titled, true) {
            if level != 1 {
                let message = format!(
                    "the first heading must be the title, of level 1 (`#`), but is of level {level}"
                );
                self.add(at, Rule::Title, message);
            } else if empty {
                self.add(at, Rule::Title, "the title is empty");
            }
        }
        if level > DEEPEST {
            let message = format!("a heading of level {level}: the deepest is {DEEPEST} (`###`)");
            self.add(at, Rule::HeadingDepth, message);
        }
        for found in version::in_heading(level, text) {
            self.add(at, Rule::Version, version::expected(found));
        }
        self.labelled = version::is_label(text);
    }

    fn open(&self, range: Range<usize>) -> Fence<'a> {
        let block = &self.text[range.clone()];
        let first_line = block.find('\n').map_or(block.len(), |end| end + 1);
        let opening = block.trim_start();
        let kind = if opening.starts_with('~') { '~' } else { '`' };
        let length = opening.len() - opening.trim_start_matches(kind).len();
        Fence {
            start: range.start,
            text_end: range.start + first_line,
            mark: &opening[..length],
        }
    }

    /// The parser closes an open fence where its container ends, and does not report it. What
    /// comes after the block's text does: a fence again, or nothing.
    fn judge_fence(&mut self, fence: &Fence<'_>, end: usize) {
        if !self.text[fence.text_end..end].contains(fence.mark) {
            let message = format!("nothing closes this fence: add a line {}", fence.mark);
            self.add(fence.start, Rule::UnclosedFence, message);
        }
    }

    fn html(&mut self, range: Range<usize>) {
        let text = self.text;
        self.not_empty();
        for (offset, opened) in html::opened(&text[range.clone()]) {
            let at = range.start + offset;
            match opened {
                Opened::Heading { level, text } => {
                    self.judge_heading(at, level, &text.replace(['<', '>'], " "), false);
                }
                Opened::Preformatted => {
                    let message = "code must stand in a fence, ``` or ~~~, not in `<pre>`";
                    self.add(at, Rule::UnfencedCode, message);
                }
            }
        }
    }

    fn add(&mut self, at: usize, rule: Rule, message: impl Into<String>) {
        self.violations.push(Violation {
            line: 1 + self.line_ends.partition_point(|end| *end < at),
            rule,
            message: message.into(),
        });
    }
}

fn is_inline(tag: TagEnd) -> bool {
    matches!(
        tag,
        TagEnd::Emphasis
            | TagEnd::Strong
            | TagEnd::Strikethrough
            | TagEnd::Superscript
            | TagEnd::Subscript
            | TagEnd::Link
            | TagEnd::Image
    )
}
