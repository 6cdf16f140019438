//! An announcement as a news item of Gentoo (GLEP 42, format 2.0).
//!
//! Invariant: no line of the body can be mistaken for a header, whatever the text says. Portage would make
//! `Display-If-Installed: …` in a body a restriction.

use crate::{
    Announcement, Error,
    check::{
        Report,
        news::{COLUMNS, is_like_header},
    },
    markdown, plain,
};

/// One column stays free for the blank that escapes a line.
const BODY_COLUMNS: usize = COLUMNS - 1;

/// Longest name behind the date, in characters.
const NAME_LIMIT: usize = 20;

/// The item.
///
/// # Errors
/// The missing fields, and the rules that it would break.
pub(crate) fn item(announcement: &Announcement) -> Result<String, Error> {
    let news = &announcement.news;
    let title = match news.title.as_str() {
        "" => &announcement.title,
        title => title,
    };
    let mut headers = vec![("Title", markdown::bare(title))];
    let mut all = |name, values: &[String]| {
        headers.extend(values.iter().map(|value| (name, value.clone())));
    };
    all("Author", &announcement.authors);
    all("Translator", &news.translators);
    all("Posted", &[announcement.date()]);
    all("Revision", &[news.revision.max(1).to_string()]);
    all("News-Item-Format", &["2.0".to_owned()]);
    all("Display-If-Installed", &news.display_if_installed);
    all("Display-If-Keyword", &news.display_if_keyword);
    all("Display-If-Profile", &news.display_if_profile);
    let mut text = String::new();
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text.push('\n');
    let body = plain::body(&announcement.body, BODY_COLUMNS);
    let address = (!announcement.url.is_empty()).then(|| format!("\n{}\n", announcement.url));
    for line in body
        .lines()
        .chain(address.iter().flat_map(|text| text.lines()))
    {
        if is_like_header(line) {
            text.push(' ');
        }
        text.push_str(line);
        text.push('\n');
    }
    let name = file_name(announcement)?;
    let report = Report::of_news(text.as_bytes(), Some(&name));
    match report.ok {
        true => Ok(text),
        false => Err(Error::BadRequest(format!(
            "the news item would break rules\n{report}of\n{text}"
        ))),
    }
}

/// The name of the item: its directory below `metadata/news`.
///
/// # Errors
/// A title from which no name can be derived.
pub fn id(announcement: &Announcement) -> Result<String, Error> {
    let name = match announcement.news.name.as_str() {
        "" => short_name(&markdown::bare(&announcement.title)),
        name => name.to_owned(),
    };
    if name.is_empty() {
        let reason = "`news.name` is missing: the title has no letters for a name";
        return Err(Error::bad_request(reason));
    }
    Ok(format!("{}-{name}", announcement.date()))
}

/// The name of the item's file.
///
/// # Errors
/// As [`id`].
pub fn file_name(announcement: &Announcement) -> Result<String, Error> {
    let language = &announcement.language;
    Ok(format!("{}.{language}.txt", id(announcement)?))
}

fn short_name(title: &str) -> String {
    let is_kept = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let words = title
        .split(|c: char| !is_kept(c))
        .filter(|word| !word.is_empty());
    let mut name = String::new();
    for word in words {
        let word = word.trim_matches('.').to_ascii_lowercase();
        let dash = usize::from(!name.is_empty());
        if word.is_empty() || name.len() + dash + word.len() > NAME_LIMIT {
            break;
        }
        if dash > 0 {
            name.push('-');
        }
        name.push_str(&word);
    }
    name
}
