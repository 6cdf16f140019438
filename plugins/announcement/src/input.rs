//! The request of `generate`, in any of its encodings.

use std::fmt;

use mediatype::{MediaType, Name, ReadParams as _};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::{
    Announcement, Choice, Error, Format, INPUT_LIMIT, Release, Templates, announcement, changelog,
    markdown, proto,
};

/// The accepted inputs, for messages.
const KNOWN: &str = "`application/json`, `application/toml`, `application/protobuf` or, of a changelog, \
                     `text/markdown; section=\"1.2.3\"; name=\"tool\"`";

/// An announcement, and the format that its author asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is announced.
    pub announcement: Announcement,
    /// The format, unless the caller says one elsewhere.
    pub format: Option<Format>,
}

impl Request {
    /// Reads and judges an input. Without a media type it is JSON.
    ///
    /// # Errors
    /// Everything that is wrong with it, or the media types that are known.
    pub fn read(
        input: &[u8],
        content_type: Option<&str>,
        templates: &Templates,
    ) -> Result<Self, Error> {
        if input.len() > INPUT_LIMIT {
            return Err(Error::BadRequest(format!(
                "the request has {} bytes, the limit is {INPUT_LIMIT}: shorten or split the document",
                input.len()
            )));
        }
        Self::of_fields(fields(input, content_type)?, templates)
    }

    /// Judges the fields, and fills title and body from `release` by a template if they have one.
    fn of_fields(mut fields: Map<String, Value>, templates: &Templates) -> Result<Self, Error> {
        let format = match fields.remove("format") {
            Some(Value::String(name)) => Some(Format::of_name(&name)?),
            Some(Value::Null) | None => None,
            Some(_) => return Err(Error::bad_request("`format` must be a string")),
        };
        let template = fields.remove("template");
        match (fields.remove("release"), template) {
            (Some(release), template) => {
                render(&mut fields, release, template.as_ref(), templates)?;
            }
            (None, Some(_)) => {
                return Err(Error::bad_request("`template` applies to `release` only"));
            }
            (None, None) => {}
        }
        let fields: announcement::Fields = serde_json::from_value(Value::Object(fields))
            .map_err(|error| Error::bad_request(format!("the request is refused: {error}")))?;
        Ok(Self {
            announcement: Announcement::judge(fields)?,
            format,
        })
    }
}

fn render(
    fields: &mut Map<String, Value>,
    release: Value,
    template: Option<&Value>,
    templates: &Templates,
) -> Result<(), Error> {
    for field in ["title", "body"] {
        if fields.contains_key(field) {
            let reason = format!("`{field}` must not stand beside `release`, which gives it");
            return Err(Error::BadRequest(reason));
        }
    }
    let release = Release::from_value(release)?;
    let text = |value: Option<&Value>, default: &'static str| match value {
        Some(Value::String(text)) => text.clone(),
        _ => default.to_owned(),
    };
    let name = text(template, Templates::RELEASE);
    let language = text(fields.get("language"), "en");
    let document = templates.render(&name, &language, &release)?;
    let (title, body) = markdown::split_title(&document)
        .ok_or_else(|| Error::Failed(format!("the template `{name}` gives no title")))?;
    fields.insert("title".to_owned(), title.into());
    fields.insert("body".to_owned(), body.into());
    let published = fields.entry("published").or_insert(Value::Null);
    if published.is_null() {
        *published = release.date.into();
    }
    Ok(())
}

fn fields(input: &[u8], content_type: Option<&str>) -> Result<Map<String, Value>, Error> {
    let unknown = |found: &str| {
        Error::UnsupportedMedia(format!("`{found}` is not what `generate` takes: {KNOWN}"))
    };
    let choice = match content_type {
        None => Choice::of(Format::Json),
        Some(content_type) => Choice::named(content_type).map_err(|_| unknown(content_type))?,
    };
    match choice.format {
        Format::Json => json(utf8(input)?),
        Format::Toml => toml(utf8(input)?),
        Format::Protobuf => match proto::decode(input)? {
            Value::Object(fields) => Ok(fields),
            _ => Ok(Map::new()),
        },
        Format::Markdown => {
            let media = content_type.and_then(|text| MediaType::parse(text).ok());
            let parameter = |name: &str| {
                let value = media.as_ref()?.get_param(Name::new(name)?)?;
                Some(value.unquoted_str().into_owned())
            };
            changelog::section(
                utf8(input)?,
                parameter("section").as_deref(),
                parameter("name").as_deref(),
            )
        }
        _ => Err(unknown(content_type.unwrap_or_default())),
    }
}

/// An object with each of its fields once.
struct Fields(Map<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.contains_key(&name) {
                        return Err(de::Error::custom(format!("duplicate field `{name}`")));
                    }
                    fields.insert(name, value);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

fn json(text: &str) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(text)
        .map(|Fields(fields)| fields)
        .map_err(|error| Error::bad_request(format!("the JSON cannot be read: {error}")))
}

fn toml(text: &str) -> Result<Map<String, Value>, Error> {
    let table: toml::Table = toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = 1 + before.unwrap_or_default().matches('\n').count();
        let reason = error.message().replace('\n', " ");
        Error::BadRequest(format!("the TOML cannot be read: line {line}: {reason}"))
    })?;
    let fields = table.into_iter().map(|(key, value)| (key, plain(value)));
    Ok(fields.collect())
}

/// TOML as JSON; a time is its text.
fn plain(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(plain).collect(),
        toml::Value::Table(table) => {
            let fields = table.into_iter().map(|(key, value)| (key, plain(value)));
            Value::Object(fields.collect())
        }
    }
}

fn utf8(input: &[u8]) -> Result<&str, Error> {
    if input.starts_with(b"\xEF\xBB\xBF") {
        let reason = "line 1: bom: the input starts with a byte order mark: remove its 3 bytes";
        return Err(Error::bad_request(reason));
    }
    str::from_utf8(input).map_err(|error| {
        let valid = &input[..error.valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        Error::BadRequest(format!("line {line}: utf-8: the input is not UTF-8 there"))
    })
}
