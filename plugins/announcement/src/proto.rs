//! An announcement as the message of `announcement.proto`.

mod message {
    include!(concat!(env!("OUT_DIR"), "/hotmerge.announcement.v1.rs"));
}

use jiff::Timestamp;
use prost::Message as _;
use serde_json::{Map, Value, json};

use crate::{Announcement, Error, News};

/// The message's bytes.
pub(crate) fn encode(announcement: &Announcement) -> Vec<u8> {
    let it = announcement.clone();
    let news = (it.news != News::default()).then_some(message::News {
        name: it.news.name,
        title: it.news.title,
        revision: it.news.revision,
        translators: it.news.translators,
        display_if_installed: it.news.display_if_installed,
        display_if_keyword: it.news.display_if_keyword,
        display_if_profile: it.news.display_if_profile,
    });
    // Protobuf counts forward from the second; so does the library that has the whole seconds of a
    // time before 1970 rounded towards 1970.
    let nanoseconds = it.published.as_nanosecond();
    let published = prost_types::Timestamp {
        seconds: nanoseconds.div_euclid(1_000_000_000) as i64,
        nanos: nanoseconds.rem_euclid(1_000_000_000) as i32,
    };
    message::Announcement {
        title: it.title,
        body: it.body,
        published: Some(published),
        tags: it.tags,
        id: it.id,
        url: it.url,
        authors: it.authors,
        language: it.language,
        news,
    }
    .encode_to_vec()
}

/// The fields of a message, to be checked. In Protobuf an empty field is missing.
///
/// # Errors
/// Bytes that are not a message.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, Error> {
    let it = message::Announcement::decode(bytes)
        .map_err(|error| Error::bad_request(format!("the message cannot be read: {error}")))?;
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        let is_empty = match &value {
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Number(number) => number.as_u64() == Some(0),
            _ => false,
        };
        if !is_empty {
            fields.insert(name.to_owned(), value);
        }
    };
    put("title", it.title.into());
    put("body", it.body.into());
    if let Some(time) = it.published {
        put("published", moment(&time).into());
    }
    put("tags", it.tags.into());
    put("id", it.id.into());
    put("url", it.url.into());
    put("authors", it.authors.into());
    put("language", it.language.into());
    if let Some(news) = it.news {
        let mut all = json!({
            "name": news.name, "title": news.title, "translators": news.translators,
            "display_if_installed": news.display_if_installed,
            "display_if_keyword": news.display_if_keyword,
            "display_if_profile": news.display_if_profile,
        });
        if news.revision > 0 {
            all["revision"] = news.revision.into();
        }
        if let Some(all) = all.as_object_mut() {
            all.retain(|_, value| value.as_str() != Some("") && *value != json!([]));
        }
        put("news", all);
    }
    Ok(Value::Object(fields))
}

/// A value that is not a time is shown unchanged, and checked with the other fields.
fn moment(time: &prost_types::Timestamp) -> String {
    match Timestamp::new(time.seconds, 0)
        .ok()
        .filter(|_| (0..1_000_000_000).contains(&time.nanos))
        .and_then(|moment| {
            moment
                .checked_add(jiff::SignedDuration::from_nanos(time.nanos.into()))
                .ok()
        }) {
        Some(moment) => moment.to_string(),
        None => format!("{} s and {} ns", time.seconds, time.nanos),
    }
}
