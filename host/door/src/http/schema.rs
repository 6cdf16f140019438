//! JSON schemas of plugins, as an OpenAPI document can hold them.
//!
//! A schema is a plugin's word, and one that is wrong would spoil the document for everybody. So
//! only keywords of JSON Schema 2020-12 are copied (`keywords`), each with a value of its kind; a
//! reference leads to another place of the same schema and is written as the document needs it.
//!
//! Invariant: what [`embed`] returns is a schema, and no reference in it leads out of it or for ever
//! in a circle.
//!
//! Absent on purpose: validation of payloads, the reading of regular expressions, annotations that
//! JSON Schema does not define.

mod keywords;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use self::keywords::{Shape, is_in_place};
use crate::bounded::encoded_len;

/// The longest pointer to a schema, in bytes: each is kept while a schema is read.
const POINTER_LIMIT: usize = 1024;

/// The longest schema, in bytes.
const LIMIT: usize = 64 << 10;

/// What is wrong with a schema, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SchemaError {
    /// It is too long.
    #[error("it has {bytes} bytes, the limit is {LIMIT}")]
    TooLong { bytes: usize },
    /// The pointer to a part of it is too long.
    #[error("a schema below `#{begin}` lies deeper than {POINTER_LIMIT} bytes of names")]
    TooDeep { begin: String },
    /// A keyword has a value of another kind.
    #[error("`#{at}` must be {expected}")]
    Wrong { at: String, expected: &'static str },
    /// A keyword changes what references mean.
    #[error("`#{at}` changes what references mean")]
    Rebased { at: String },
    /// A reference leads to something else than a schema.
    #[error("`#{at}` leads to `#{target}`, which is not a schema")]
    Dangling { at: String, target: String },
    /// Its references lead in a circle.
    #[error("`#{at}` refers to itself endlessly")]
    Endless { at: String },
}

/// A schema as it can stand at `place`, a reference of the document such as `#/components/schemas/a`.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn embed(schema: &Value, place: &str) -> Result<Value, SchemaError> {
    let bytes = encoded_len(schema);
    if bytes > LIMIT {
        return Err(SchemaError::TooLong { bytes });
    }
    let mut walk = Walk {
        place,
        ..Walk::default()
    };
    let copy = walk.schema(schema, String::new())?;
    walk.follow_references()?;
    Ok(copy)
}

#[derive(Default)]
struct Walk<'a> {
    place: &'a str,
    /// The pointers of all schemas in it.
    schemas: BTreeSet<String>,
    /// Which schemas judge the value of which other schema.
    in_place: BTreeMap<String, Vec<String>>,
    references: Vec<(String, String)>,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Value, at: String) -> Result<Value, SchemaError> {
        if at.len() > POINTER_LIMIT {
            let begin = at[..at.floor_char_boundary(64)].to_owned();
            return Err(SchemaError::TooDeep { begin });
        }
        self.schemas.insert(at.clone());
        let map = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(map) => map,
            _ => return Err(wrong(&at, "an object, `true` or `false`")),
        };
        let mut copy = Map::new();
        for (keyword, value) in map {
            if let Some(shape) = Shape::of(keyword) {
                let value = self.value(&at, keyword, shape, value)?;
                copy.insert(keyword.clone(), value);
            }
        }
        Ok(Value::Object(copy))
    }

    fn value(
        &mut self,
        owner: &str,
        keyword: &str,
        shape: Shape,
        value: &Value,
    ) -> Result<Value, SchemaError> {
        let at = below(owner, keyword);
        let expected = match shape {
            Shape::Schema => return self.member(owner, keyword, value, at),
            Shape::Schemas => match value.as_array().filter(|all| !all.is_empty()) {
                Some(all) => {
                    let numbered = all.iter().enumerate();
                    let members = numbered.map(|(index, member)| {
                        self.member(owner, keyword, member, below(&at, &index.to_string()))
                    });
                    return members.collect();
                }
                None => "a list of schemas that is not empty",
            },
            Shape::SchemaByName => match value.as_object() {
                Some(all) => {
                    let members = all.iter().map(|(name, member)| {
                        let member = self.member(owner, keyword, member, below(&at, name))?;
                        Ok((name.clone(), member))
                    });
                    return members.collect::<Result<Map<_, _>, _>>().map(Value::Object);
                }
                None => "an object of schemas",
            },
            Shape::Reference => return self.reference(owner, &at, value),
            Shape::Refused => return Err(SchemaError::Rebased { at }),
            _ if shape.fits(value) => return Ok(value.clone()),
            _ => shape.expected(),
        };
        Err(wrong(&at, expected))
    }

    fn member(
        &mut self,
        owner: &str,
        keyword: &str,
        value: &Value,
        at: String,
    ) -> Result<Value, SchemaError> {
        if is_in_place(keyword) {
            self.lead(owner, &at);
        }
        self.schema(value, at)
    }

    fn lead(&mut self, from: &str, to: &str) {
        let all = self.in_place.entry(from.to_owned()).or_default();
        all.push(to.to_owned());
    }

    fn reference(&mut self, owner: &str, at: &str, value: &Value) -> Result<Value, SchemaError> {
        let target = value.as_str().and_then(|text| text.strip_prefix('#'));
        let Some(target) = target else {
            return Err(wrong(at, "a reference to a place in the same schema"));
        };
        self.references.push((at.to_owned(), target.to_owned()));
        self.lead(owner, target);
        Ok(Value::from(format!("{}{target}", self.place)))
    }

    fn follow_references(&self) -> Result<(), SchemaError> {
        for (at, target) in &self.references {
            if !self.schemas.contains(target) {
                let (at, target) = (at.clone(), target.clone());
                return Err(SchemaError::Dangling { at, target });
            }
        }
        match self.circle() {
            Some(at) => Err(SchemaError::Endless { at: at.to_owned() }),
            None => Ok(()),
        }
    }

    /// A schema from which a way of schemas for the same value leads back to it.
    fn circle(&self) -> Option<&str> {
        let mut done = BTreeSet::new();
        for from in self.in_place.keys() {
            // The path to here, and what is still to be checked after each step.
            let mut way = vec![(from.as_str(), self.behind(from))];
            let mut on_way = BTreeSet::from([from.as_str()]);
            while let Some((at, behind)) = way.last_mut() {
                let Some(next) = behind.next() else {
                    on_way.remove(at);
                    done.insert(*at);
                    way.pop();
                    continue;
                };
                if on_way.contains(next.as_str()) {
                    return Some(next);
                }
                if !done.contains(next.as_str()) {
                    on_way.insert(next);
                    way.push((next, self.behind(next)));
                }
            }
        }
        None
    }

    fn behind(&self, at: &str) -> std::slice::Iter<'_, String> {
        self.in_place.get(at).map_or(&[][..], Vec::as_slice).iter()
    }
}

fn wrong(at: &str, expected: &'static str) -> SchemaError {
    let at = at.to_owned();
    SchemaError::Wrong { at, expected }
}

/// The pointer of a member.
fn below(at: &str, member: &str) -> String {
    format!("{at}/{}", member.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_lead_to_the_embedded_schema() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "xml": 5,
            "properties": {
                "$ref": { "const": { "$ref": "#/not/a/reference" } },
                "next": { "$ref": "#" },
                "name": { "$ref": "#/$defs/a~1b" },
            },
            "$defs": { "a/b": { "type": ["string", "null"] } },
        });
        let expected = json!({
            "properties": {
                "$ref": { "const": { "$ref": "#/not/a/reference" } },
                "next": { "$ref": "#/components/schemas/x" },
                "name": { "$ref": "#/components/schemas/x/$defs/a~1b" },
            },
            "$defs": { "a/b": { "type": ["string", "null"] } },
        });
        assert_eq!(embed(&schema, "#/components/schemas/x"), Ok(expected));
        assert_eq!(embed(&json!(true), "#/x"), Ok(json!(true)));
    }

    #[test]
    fn a_wrong_schema_is_refused_with_the_place() {
        for (schema, expected) in [
            (json!([]), "`#` must be an object, `true` or `false`"),
            (
                json!({ "properties": { "a": { "minLength": "1" } } }),
                "`#/properties/a/minLength` must be a whole number that is not negative",
            ),
            (
                json!({ "items": [{}] }),
                "`#/items` must be an object, `true` or `false`",
            ),
            (
                json!({ "anyOf": [] }),
                "`#/anyOf` must be a list of schemas that is not empty",
            ),
            (
                json!({ "type": "text" }),
                "`#/type` must be a type of JSON or a list of such",
            ),
            (
                json!({ "required": ["a", "a"] }),
                "`#/required` must be a list of different texts",
            ),
            (
                json!({ "$id": "https://example.org/" }),
                "`#/$id` changes what references mean",
            ),
            (
                json!({ "$ref": "https://example.org/schema" }),
                "`#/$ref` must be a reference to a place in the same schema",
            ),
            (
                json!({ "$ref": "#/required" , "required": [] }),
                "`#/$ref` leads to `#/required`, which is not a schema",
            ),
            (json!({ "$ref": "#" }), "`#` refers to itself endlessly"),
            (
                json!({ "properties": { "a": { "allOf": [{ "not": { "$ref": "#/properties/a" } }] } } }),
                "`#/properties/a` refers to itself endlessly",
            ),
        ] {
            let refused = embed(&schema, "#/x").unwrap_err().to_string();
            assert_eq!(refused, expected, "{schema}");
        }
    }

    #[test]
    fn a_schema_that_would_cost_much_is_refused() {
        let long = json!({ "properties": { ("x".repeat(2000)): {} } });
        let refused = embed(&long, "#/x").unwrap_err().to_string();
        assert!(
            refused.ends_with("lies deeper than 1024 bytes of names"),
            "{refused}"
        );
        let large = json!({ "title": "x".repeat(LIMIT) });
        let refused = embed(&large, "#/x").unwrap_err().to_string();
        assert_eq!(refused, "it has 65548 bytes, the limit is 65536");
        // Long chains are not circles, and are checked quickly.
        let link = |number| {
            let target = format!("#/$defs/{}", number + 1);
            (format!("{number}"), json!({ "$ref": target }))
        };
        let mut links: Map<_, _> = (0..1500).map(link).collect();
        links.insert("1500".to_owned(), json!(true));
        assert!(embed(&json!({ "$defs": links }), "#/x").is_ok());
    }
}
