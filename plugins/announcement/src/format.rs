//! The formats, and how a caller chooses one.

use mediatype::{MediaType, MediaTypeList, Name, ReadParams as _};

use crate::Error;

/// A format of announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// For people, by a template.
    Markdown,
    /// For programs.
    Json,
    /// For people who write what programs read.
    Toml,
    /// For programs, as `announcement.proto` defines it.
    Protobuf,
    /// A page.
    Html,
    /// For mail and terminals.
    Text,
    /// An entry of an Atom feed (RFC 4287).
    Atom,
    /// A news item of Gentoo (GLEP 42).
    News,
}

/// All formats with a name and their media types, the usual one first.
const FORMATS: &[(Format, &str, &[&str])] = &[
    (
        Format::Markdown,
        "markdown",
        &["text/markdown; charset=utf-8"],
    ),
    (Format::Json, "json", &["application/json"]),
    (Format::Toml, "toml", &["application/toml"]),
    (
        Format::Protobuf,
        "protobuf",
        &[
            "application/protobuf",
            "application/x-protobuf",
            "application/vnd.google.protobuf",
        ],
    ),
    (Format::Html, "html", &["text/html; charset=utf-8"]),
    (Format::Text, "text", &["text/plain; charset=utf-8"]),
    (
        Format::Atom,
        "atom",
        &["application/atom+xml; type=entry; charset=utf-8"],
    ),
    (Format::News, "news", &["text/x-gentoo-news; charset=utf-8"]),
];

const Q: Name<'_> = Name::new_unchecked("q");
const CHARSET: Name<'_> = Name::new_unchecked("charset");
const NAME: Name<'_> = Name::new_unchecked("name");

/// A format, and the media type that a reply names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The format.
    pub format: Format,
    /// Its media type, as the caller knows it.
    pub content_type: &'static str,
    /// The parameter `name` of a caller's media type.
    pub name: Option<String>,
}

impl Format {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMATS.iter().map(|(format, ..)| *format)
    }

    /// Its media types, the usual one first.
    pub fn content_types(self) -> &'static [&'static str] {
        types(self)
    }

    /// The name that people write.
    pub fn name(self) -> &'static str {
        let row = FORMATS.iter().find(|(format, ..)| *format == self);
        row.map_or("", |(_, name, _)| *name)
    }

    /// The format of a name.
    ///
    /// # Errors
    /// A bad request with all names.
    pub fn of_name(wanted: &str) -> Result<Self, Error> {
        let row = FORMATS.iter().find(|(_, name, _)| *name == wanted);
        row.map(|(format, ..)| *format).ok_or_else(|| {
            let names: Vec<_> = FORMATS.iter().map(|(_, name, _)| *name).collect();
            Error::BadRequest(format!(
                "`format` must be one of `{}`, found {wanted:?}",
                names.join("`, `")
            ))
        })
    }
}

impl Choice {
    /// A format by its usual media type.
    pub fn of(format: Format) -> Self {
        Self {
            format,
            content_type: types(format)[0],
            name: None,
        }
    }

    /// The format that a caller accepts most, by HTTP's rules: the most specific range decides of each
    /// media type, the highest `q` wins, and of equals the first of this crate.
    ///
    /// # Errors
    /// The header is not an `Accept`, or nothing is accepted: with all that could be.
    pub fn accepted(accept: &str) -> Result<Self, Error> {
        let all: Vec<_> = Format::all().collect();
        Self::accepted_of(accept, &all)
    }

    /// As [`Choice::accepted`], of some formats, the first of which is preferred.
    ///
    /// # Errors
    /// As there.
    pub fn accepted_of(accept: &str, formats: &[Format]) -> Result<Self, Error> {
        let mut ranges = Vec::new();
        for range in MediaTypeList::new(accept) {
            let refuse = |why: &str| Error::BadRequest(format!("`Accept: {accept}` {why}"));
            let range = range.map_err(|error| refuse(&format!("cannot be read: {error}")))?;
            let q = match range.get_param(Q) {
                None => 1000,
                Some(q) => thousandths(q.as_str())
                    .ok_or_else(|| refuse("has a `q` that is not 0 to 1 with three digits"))?,
            };
            ranges.push((range, q));
        }
        let mut best: Option<(u16, Self)> = None;
        let rows = formats.iter().map(|format| (format, types(*format)));
        for (format, types) in rows {
            for content_type in types {
                let Ok(known) = MediaType::parse(content_type) else {
                    continue;
                };
                let matching = ranges
                    .iter()
                    .filter_map(|(range, q)| Some((fits(range, &known)?, *q)));
                let Some((_, q)) = matching.max_by_key(|(specific, _)| *specific) else {
                    continue;
                };
                if q > 0 && best.as_ref().is_none_or(|(most, _)| q > *most) {
                    let choice = Self {
                        content_type,
                        ..Self::of(*format)
                    };
                    best = Some((q, choice));
                }
            }
        }
        best.map(|(_, choice)| choice).ok_or_else(|| {
            Error::NotAcceptable(format!(
                "`{accept}` accepts none of {}",
                usual_types(formats)
            ))
        })
    }

    /// The format of a media type.
    ///
    /// # Errors
    /// That it is unknown, with those that are.
    pub fn named(content_type: &str) -> Result<Self, Error> {
        let unknown = |why: &str| {
            let all: Vec<_> = Format::all().collect();
            Error::UnsupportedMedia(format!("`{content_type}` {why} {}", usual_types(&all)))
        };
        let wanted = MediaType::parse(content_type)
            .map_err(|_| unknown("is not a media type; known are"))?;
        if wanted
            .get_param(CHARSET)
            .is_some_and(|charset| !charset.unquoted_str().eq_ignore_ascii_case("utf-8"))
        {
            return Err(unknown("is not in UTF-8; known are"));
        }
        for (format, _, types) in FORMATS {
            for known in *types {
                if MediaType::parse(known).is_ok_and(|known| known.essence() == wanted.essence()) {
                    return Ok(Self {
                        content_type: known,
                        name: wanted
                            .get_param(NAME)
                            .map(|name| name.unquoted_str().into_owned()),
                        ..Self::of(*format)
                    });
                }
            }
        }
        Err(unknown("is none of"))
    }
}

fn types(format: Format) -> &'static [&'static str] {
    let row = FORMATS.iter().find(|(known, ..)| *known == format);
    row.map_or(&[], |(.., types)| types)
}

fn usual_types(formats: &[Format]) -> String {
    let types: Vec<_> = formats.iter().map(|format| types(*format)[0]).collect();
    format!("`{}`", types.join("`, `"))
}

/// How specific the range that contains a media type is; `None` if none does.
fn fits(range: &MediaType<'_>, known: &MediaType<'_>) -> Option<usize> {
    let any = |name: Name<'_>| name.as_str() == "*";
    if any(range.ty) && any(range.subty) {
        return Some(0);
    }
    if any(range.subty) {
        return (range.ty == known.ty).then_some(1);
    }
    if range.essence() != known.essence() {
        return None;
    }
    let mut specific = 2;
    for (name, value) in range.params().take_while(|(name, _)| *name != Q) {
        let own = known.get_param(name)?;
        if !own
            .unquoted_str()
            .eq_ignore_ascii_case(&value.unquoted_str())
        {
            return None;
        }
        specific += 1;
    }
    Some(specific)
}

/// `q` as HTTP writes it, 0 to 1 with at most three digits, in thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    let is_number = digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths: u16 = format!("{digits:0<3}").parse().ok()?;
    match whole {
        "0" if is_number => Some(thousandths),
        "1" if is_number && thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_accepted_format_is_chosen() {
        for (accept, content_type) in [
            ("*/*", "text/markdown; charset=utf-8"),
            ("application/json", "application/json"),
            (
                "text/*;q=0.5, application/*;q=0.4",
                "text/markdown; charset=utf-8",
            ),
            ("text/*;q=0.5, application/toml;q=0.51", "application/toml"),
            ("text/html, */*;q=0.1", "text/html; charset=utf-8"),
            ("TEXT/HTML;Charset=\"UTF-8\"", "text/html; charset=utf-8"),
            ("*/*, text/markdown;q=0", "application/json"),
            ("application/x-protobuf", "application/x-protobuf"),
            (
                "application/atom+xml;type=entry",
                "application/atom+xml; type=entry; charset=utf-8",
            ),
            (
                "application/xml, text/x-gentoo-news;q=0.001",
                "text/x-gentoo-news; charset=utf-8",
            ),
            // The more specific range decides, wherever it stands.
            (
                "text/plain;q=0.2, text/*;q=0.9, */*;q=0.1, text/markdown;q=0.1, text/html;q=0.1, text/x-gentoo-news;q=0",
                "text/plain; charset=utf-8",
            ),
        ] {
            let choice = Choice::accepted(accept);
            assert_eq!(choice.unwrap().content_type, content_type, "{accept}");
        }
    }

    #[test]
    fn nothing_acceptable_names_everything() {
        for accept in [
            "image/png",
            "text/html;level=1",
            "*/*;q=0",
            "application/atom+xml;type=feed",
        ] {
            let Err(Error::NotAcceptable(reason)) = Choice::accepted(accept) else {
                panic!("{accept}")
            };
            assert!(
                reason.contains("`application/json`, `application/toml`"),
                "{reason}"
            );
        }
        for accept in [
            "text",
            "text/html;q=2",
            "text/html;q=0.0001",
            "text/html;q=x",
            "a/b,,;",
        ] {
            assert!(
                matches!(Choice::accepted(accept), Err(Error::BadRequest(_))),
                "{accept}"
            );
        }
    }

    #[test]
    fn media_types_name_formats() {
        for format in Format::all() {
            let choice = Choice::of(format);
            assert_eq!(Choice::named(choice.content_type), Ok(choice));
            assert_eq!(Format::of_name(format.name()), Ok(format));
        }
        let named = Choice::named("text/x-gentoo-news; name=\"a b.txt\"").unwrap();
        assert_eq!(named.name.as_deref(), Some("a b.txt"));
        for bad in ["text/markdown; charset=latin1", "x/y", "json", ""] {
            let refused = Choice::named(bad);
            assert!(matches!(refused, Err(Error::UnsupportedMedia(_))), "{bad}");
        }
    }
}
