//! The methods of one plugin, as an OpenAPI document can hold them.
//!
//! Invariant: whatever a plugin's description contains, what becomes part of the document is valid and at most
//! [`LIMIT`] bytes long. What the document cannot hold is left out, and [`Operations::left_out`] says why.
//!
//! Absent on purpose: what is the same for all methods, which `openapi` adds.

use std::fmt;

use hotmerge_meta::control::{DescribedMethod, Description, Payload};
use mediatype::MediaType;
use serde_json::{Map, Value, json};

use super::schema;
use crate::bounded::{encoded_len, plain_within};

/// The most that one plugin may say, in bytes.
const LIMIT: usize = 256 << 10;
/// The longest name of a method, in bytes.
const NAME_LIMIT: usize = 128;
/// The longest sentence, in bytes.
const SENTENCE_LIMIT: usize = 1024;
/// The longest example, in bytes.
const EXAMPLE_LIMIT: usize = 16 << 10;
/// The most media types of a payload.
const TYPES_LIMIT: usize = 64;
/// How many of the things that were left out are named one by one.
const NAMED_LIMIT: usize = 8;
/// What `openapi` adds to each method, in bytes, nearly.
const OVERHEAD: usize = 2048;

/// The methods of a plugin, as far as the document can hold them.
#[derive(Debug, Default)]
pub(super) struct Operations {
    pub(super) all: Vec<Operation>,
    /// What was left out, and why.
    pub(super) left_out: Vec<String>,
}

/// One method.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: String,
    pub(super) summary: String,
    /// The value of `content` of the request, and of the reply.
    pub(super) request: Value,
    pub(super) reply: Value,
    /// For the document's components.
    pub(super) schemas: Vec<(String, Value)>,
    /// Its length in the document, nearly.
    pub(super) bytes: usize,
}

/// Builds them from a plugin's description.
pub(super) fn of(plugin: &str, description: &Description) -> Operations {
    let mut made = Operations::default();
    let mut left = LIMIT;
    for (index, method) in description.methods.iter().enumerate() {
        if let Err(reason) = check_address(&method.name) {
            made.leave_out(&method.name, "", reason);
            continue;
        }
        let operation = made.operation(plugin, method);
        let Some(rest) = left.checked_sub(operation.bytes) else {
            let rest = description.methods.len() - index;
            made.left_out
                .push(format!("{rest} methods: the description is too long"));
            break;
        };
        left = rest;
        made.all.push(operation);
    }
    let all = made.left_out.len();
    if all > NAMED_LIMIT {
        made.left_out.truncate(NAMED_LIMIT);
        made.left_out.push(format!("{} more", all - NAMED_LIMIT));
    }
    made
}

/// Why a method has no address of its own in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NoAddress {
    #[error("`GET` of its address has another meaning; `POST` calls it")]
    Taken,
    #[error("an address cannot hold this name as it is; encode it to call it")]
    Encoded,
}

/// Whether a method can have an address of its own in the document.
fn check_address(name: &str) -> Result<(), NoAddress> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name == "history" {
        return Err(NoAddress::Taken);
    }
    match name.bytes().all(is_plain) && name.len() <= NAME_LIMIT && name != "." && name != ".." {
        true => Ok(()),
        false => Err(NoAddress::Encoded),
    }
}

impl Operations {
    fn leave_out(&mut self, method: &str, what: &str, reason: impl fmt::Display) {
        let method = plain_within(method, NAME_LIMIT);
        let reason = plain_within(&reason.to_string(), SENTENCE_LIMIT);
        self.left_out.push(format!("{what}`{method}`: {reason}"));
    }

    fn operation(&mut self, plugin: &str, method: &DescribedMethod) -> Operation {
        let summary = plain_within(&method.summary, SENTENCE_LIMIT);
        let mut schemas = Vec::new();
        let mut content = |name, payload, example| {
            let key = format!("{plugin}.{}.{name}", method.name);
            self.content((method, name, key), payload, example, &mut schemas)
        };
        let request = content("request", &method.request, method.example.as_deref());
        let reply = content("reply", &method.reply, None);
        let of_schemas: usize = schemas
            .iter()
            .map(|(key, schema): &(String, Value)| key.len() + encoded_len(schema))
            .sum();
        let of_contents = encoded_len(&request) + encoded_len(&reply);
        Operation {
            bytes: OVERHEAD + of_schemas + encoded_len(&json!(summary)) + of_contents,
            method: method.name.clone(),
            summary,
            request,
            reply,
            schemas,
        }
    }

    fn content(
        &mut self,
        (method, name, key): (&DescribedMethod, &str, String),
        payload: &Payload,
        example: Option<&str>,
        schemas: &mut Vec<(String, Value)>,
    ) -> Value {
        let place = format!("#/components/schemas/{key}");
        let schema = payload.schema.as_ref().and_then(|schema| {
            let embedded = schema::embed(schema, &place);
            let refused =
                |reason| self.leave_out(&method.name, &format!("the {name} schema of "), reason);
            embedded.map_err(refused).ok()
        });
        let mut content = Map::new();
        let types = self.types(method, name, payload);
        for (index, name) in types.iter().enumerate() {
            let is_json = is_json(name);
            let mut media = Map::new();
            if is_json && schema.is_some() {
                media.insert("schema".to_owned(), json!({ "$ref": place }));
            }
            let example = example.filter(|it| index == 0 && it.len() <= EXAMPLE_LIMIT);
            if let Some(example) = example {
                let read = is_json.then(|| serde_json::from_str(example).ok());
                let example = read.flatten().unwrap_or_else(|| Value::from(example));
                media.insert("example".to_owned(), example);
            }
            content.insert(name.clone(), Value::Object(media));
        }
        if let Some(schema) = schema.filter(|_| types.iter().any(|name| is_json(name))) {
            schemas.push((key, schema));
        }
        Value::Object(content)
    }

    /// Its media types; any if it names none.
    fn types(&mut self, method: &DescribedMethod, name: &str, payload: &Payload) -> Vec<String> {
        let all = &payload.content_types;
        let is_type = |text: &str| text.len() <= 255 && MediaType::parse(text).is_ok();
        let known = all.iter().filter(|text| is_type(text));
        let types: Vec<_> = known.take(TYPES_LIMIT).cloned().collect();
        if types.len() < all.len() {
            let count = all.len() - types.len();
            let reason = format!("{count} are invalid media types or too many");
            self.leave_out(&method.name, &format!("{name} types of "), reason);
        }
        match types.is_empty() {
            true => vec!["*/*".to_owned()],
            false => types,
        }
    }
}

fn is_json(name: &str) -> bool {
    MediaType::parse(name).is_ok_and(|it| {
        let suffix = it
            .suffix
            .is_some_and(|suffix| suffix == mediatype::names::JSON);
        suffix || it.ty == mediatype::names::APPLICATION && it.subty == mediatype::names::JSON
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(methods: Value) -> Operations {
        let document = json!({ "methods": methods }).to_string();
        of("p", &Description::read(document.as_bytes()).unwrap())
    }

    #[test]
    fn schemas_stand_among_the_components() {
        let made = read(json!([{
            "name": "a",
            "summary": "Does a",
            "request": { "content_types": ["application/json; charset=utf-8", "text/plain"],
                         "schema": r#"{"type":"object"}"# },
            "reply": { "content_types": ["text/plain"], "schema": r#"{"type":"string"}"# },
            "example": "{\"x\":1}",
        }]));
        let operation = &made.all[0];
        assert_eq!(
            operation.request,
            json!({
                "application/json; charset=utf-8": {
                    "schema": { "$ref": "#/components/schemas/p.a.request" },
                    "example": { "x": 1 },
                },
                "text/plain": {},
            })
        );
        assert_eq!(operation.reply, json!({ "text/plain": {} }));
        let schema = ("p.a.request".to_owned(), json!({ "type": "object" }));
        assert_eq!(operation.schemas, [schema]);
        assert!(made.left_out.is_empty(), "{:?}", made.left_out);
    }

    #[test]
    fn omitted_parts_are_named() {
        let made = read(json!([
            { "name": "a/b" },
            { "name": "history" },
            { "name": "c", "request": { "content_types": ["none", "a/b"], "schema": "{\"type\":1}" } },
        ]));
        assert_eq!(
            made.left_out,
            [
                "`a/b`: an address cannot hold this name as it is; encode it to call it",
                "`history`: `GET` of its address has another meaning; `POST` calls it",
                "the request schema of `c`: `#/type` must be a type of JSON or a list of such",
                "request types of `c`: 1 are invalid media types or too many",
            ]
        );
        assert_eq!(made.all.len(), 1);
        assert_eq!(made.all[0].request, json!({ "a/b": {} }));
        assert_eq!(made.all[0].reply, json!({ "*/*": {} }));
    }

    #[test]
    fn a_long_description_is_cut() {
        let method =
            |number: u32| json!({ "name": format!("m{number}"), "summary": "x".repeat(500) });
        let made = read((0..1000).map(method).collect());
        let bytes: usize = made.all.iter().map(|it| it.bytes).sum();
        assert!(!made.all.is_empty() && bytes <= LIMIT, "{bytes}");
        let rest = 1000 - made.all.len();
        let said = format!("{rest} methods: the description is too long");
        assert_eq!(made.left_out, [said]);
        let made = read(
            (0..100)
                .map(|it| json!({ "name": format!("/{it}") }))
                .collect(),
        );
        assert_eq!(made.left_out.len(), NAMED_LIMIT + 1);
        assert_eq!(made.left_out.last().unwrap(), "92 more");
    }
}
