//! GLEP 42 to the letter, format 2.0, and further rules for what news readers get wrong.
//!
//! Portage looks for restrictions at the beginning of every line, also of the body, and judges
//! hardly anything; so what it accepts says nothing.

use unicode_width::UnicodeWidthStr as _;

use super::{Rule, Violation, dependency};
use crate::release::is_day;

/// How wide a line of the body may be.
pub(crate) const COLUMNS: usize = 72;

/// How long a title may be, in characters.
const TITLE_LIMIT: usize = 50;

/// The headers in their order: name, whether there must be one, whether there may be several.
const HEADERS: &[(&str, bool, bool)] = &[
    ("Title", true, false),
    ("Author", true, true),
    ("Translator", false, true),
    ("Posted", true, false),
    ("Revision", true, false),
    ("News-Item-Format", true, false),
    ("Display-If-Installed", false, true),
    ("Display-If-Keyword", false, true),
    ("Display-If-Profile", false, true),
];

/// Whether readers of news would take a line of the body for a header.
pub(crate) fn is_like_header(line: &str) -> bool {
    let known = HEADERS.iter().map(|(name, ..)| *name);
    known.chain(["Content-Type"]).any(|name| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.trim_start().starts_with(':'))
    })
}

/// Adds the violations of a news item.
pub(super) fn check(text: &str, violations: &mut Vec<Violation>) {
    let mut item = Item {
        violations,
        last: 0,
    };
    let mut seen = Vec::new();
    let mut lines = text.split('\n').zip(1..);
    let mut headers = 0;
    for (line, number) in lines.by_ref() {
        headers = number;
        if line.is_empty() {
            break;
        }
        item.header(line, number, &mut seen);
    }
    item.missing(&seen, headers);
    let mut body: Vec<_> = lines.collect();
    if body.last().is_some_and(|(line, _)| line.is_empty()) {
        body.pop();
    }
    item.body(&body, headers);
}

/// Checks the name of an item's file, `ID.LANG.txt`, against what the item says.
pub(super) fn check_name(name: &str, text: &str, violations: &mut Vec<Violation>) {
    let parts = name
        .strip_suffix(".txt")
        .and_then(|rest| rest.rsplit_once('.'))
        .and_then(|(id, language)| Some((id.split_at_checked(11)?, language)));
    let Some(((date, short), language)) = parts else {
        let message =
            format!("the file must be called `YYYY-MM-DD-NAME.LANGUAGE.txt`, not `{name}`");
        return add(violations, 1, Rule::NewsName, message);
    };
    let day = date.strip_suffix('-').unwrap_or_default();
    if is_day(day) != Some(true) {
        let message = format!("the name begins with `{date}`, which is not a day and `-`");
        add(violations, 1, Rule::NewsName, message);
    }
    if let Err(reason) = dependency::judge_short_name(short) {
        add(
            violations,
            1,
            Rule::NewsName,
            format!("the name behind the date {reason}"),
        );
    }
    if !dependency::is_language(language) {
        let message = format!("`{language}` is not a language tag such as `en`");
        add(violations, 1, Rule::NewsName, message);
    }
    let posted = text.lines().find_map(|line| line.strip_prefix("Posted: "));
    if posted.is_some_and(|posted| posted < day) {
        let message = format!("the item was posted before the day in its name, {day}");
        add(violations, 1, Rule::NewsName, message);
    }
}

fn add(violations: &mut Vec<Violation>, line: usize, rule: Rule, message: impl Into<String>) {
    violations.push(Violation {
        line,
        rule,
        message: message.into(),
    });
}

struct Item<'a> {
    violations: &'a mut Vec<Violation>,
    /// The furthest header of the order so far.
    last: usize,
}

impl Item<'_> {
    fn add(&mut self, line: usize, rule: Rule, message: impl Into<String>) {
        add(self.violations, line, rule, message);
    }

    fn header(&mut self, line: &str, number: usize, seen: &mut Vec<usize>) {
        let Some((name, value)) = line.split_once(": ") else {
            let message = "this is not a header `Name: value`; a blank line must end the headers";
            return self.add(number, Rule::NewsHeader, message);
        };
        let place = HEADERS.iter().position(|(known, ..)| *known == name);
        let Some(place) = place else {
            let message = match name {
                "Content-Type" => "`Content-Type` is of format 1.0 only: remove it".to_owned(),
                _ => format!("`{name}` is not a header of a news item"),
            };
            return self.add(number, Rule::NewsHeader, message);
        };
        if seen.contains(&place) && !HEADERS[place].2 {
            self.add(number, Rule::NewsHeader, format!("`{name}` occurs twice"));
        }
        if place < self.last {
            let before = HEADERS[self.last].0;
            let message = format!("`{name}` must stand before `{before}`");
            self.add(number, Rule::NewsHeader, message);
        }
        self.last = self.last.max(place);
        seen.push(place);
        if value.trim() != value || value.is_empty() {
            let message =
                format!("the value of `{name}` must be one text without blanks around it");
            self.add(number, Rule::NewsHeader, message);
        }
        self.value(name, value.trim(), number);
    }

    fn value(&mut self, name: &str, value: &str, number: usize) {
        let person = || match dependency::is_person(value) {
            true => Ok(()),
            false => Err(format!(
                "must be `Name <mail@example.org>`, found `{value}`"
            )),
        };
        let (rule, judged) = match name {
            "Title" => (Rule::NewsTitle, title(value)),
            "Author" | "Translator" => (Rule::NewsHeader, person()),
            "Posted" => (
                Rule::NewsHeader,
                (is_day(value) == Some(true)).then_some(()).ok_or_else(|| {
                    format!("must be a day of the calendar as `YYYY-MM-DD`, found `{value}`")
                }),
            ),
            "Revision" => (
                Rule::NewsHeader,
                (value.parse::<u32>().is_ok_and(|number| number > 0)
                    && !value.starts_with(['0', '+']))
                .then_some(())
                .ok_or_else(|| format!("must be a number from 1, found `{value}`")),
            ),
            "News-Item-Format" => (
                Rule::NewsHeader,
                (value == "2.0")
                    .then_some(())
                    .ok_or_else(|| format!("must be `2.0`, found `{value}`")),
            ),
            "Display-If-Installed" => (Rule::NewsDisplay, dependency::judge(value)),
            "Display-If-Keyword" => (Rule::NewsDisplay, dependency::judge_keyword(value)),
            _ => (Rule::NewsDisplay, dependency::judge_profile(value)),
        };
        if let Err(reason) = judged {
            self.add(number, rule, format!("`{name}` {reason}"));
        }
    }

    fn missing(&mut self, seen: &[usize], line: usize) {
        for (place, (name, is_needed, _)) in HEADERS.iter().enumerate() {
            if *is_needed && !seen.contains(&place) {
                self.add(line, Rule::NewsHeader, format!("`{name}` is missing"));
            }
        }
    }

    fn body(&mut self, lines: &[(&str, usize)], headers: usize) {
        if lines.iter().all(|(line, _)| line.trim().is_empty()) {
            self.add(
                headers,
                Rule::NewsBody,
                "there is no text below the headers",
            );
        }
        for (line, number) in lines {
            if line.contains('\t') {
                self.add(*number, Rule::NewsBody, "a tab: use blanks");
            }
            if is_like_header(line) {
                let message =
                    "readers of news would take this line for a header: indent or reword it";
                self.add(*number, Rule::NewsBody, message);
            }
            let columns = line.width();
            if columns > COLUMNS && !is_one_word(line) {
                let message = format!("the line has {columns} columns, the limit is {COLUMNS}");
                self.add(*number, Rule::NewsColumns, message);
            }
        }
    }
}

/// Whether a line is one word that cannot be broken, such as an address, perhaps behind a mark.
fn is_one_word(line: &str) -> bool {
    let text = line.trim_start();
    let text = text.split_once(' ').map_or(text, |(mark, rest)| {
        let is_mark = mark.len() <= 4 && !mark.contains(|c: char| c.is_alphabetic());
        if is_mark { rest.trim_start() } else { text }
    });
    !text.contains(' ')
}

fn title(value: &str) -> Result<(), String> {
    let signs = value.chars().count();
    match signs {
        0 => Err("is empty".to_owned()),
        1..=TITLE_LIMIT => Ok(()),
        _ => Err(format!(
            "has {signs} characters, the limit is {TITLE_LIMIT}"
        )),
    }
}
