//! JSON schemas of plugins, as an OpenAPI document can hold them.
//!
//! A schema is a plugin's word, and one that is wrong would spoil the document for everybody. So
//! only keywords of JSON Schema 2020-12 are copied, each with a value of its kind; a reference
//! leads to another place of the same schema and is written as the document needs it.
//!
//! Invariant: what [`embed`] returns is a schema, and no reference in it leads out of it or for ever
//! in a circle.
//!
//! Absent on purpose: validation of payloads, the reading of regular expressions, annotations that
//! JSON Schema does not define.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// What a keyword's value must be.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Schema,
    /// A list of schemas, of which there is one at least.
    Schemas,
    SchemaByName,
    Reference,
    Text,
    Texts,
    TextsByName,
    Number,
    Positive,
    Count,
    Flag,
    Types,
    Any,
    List,
    /// It changes what references mean.
    Refused,
}

const KEYWORDS: &[(&str, Shape)] = &[
    ("$anchor", Shape::Refused),
    ("$defs", Shape::SchemaByName),
    ("$dynamicAnchor", Shape::Refused),
    ("$dynamicRef", Shape::Refused),
    ("$id", Shape::Refused),
    ("$ref", Shape::Reference),
    ("$vocabulary", Shape::Refused),
    ("additionalProperties", Shape::Schema),
    ("allOf", Shape::Schemas),
    ("anyOf", Shape::Schemas),
    ("const", Shape::Any),
    ("contains", Shape::Schema),
    ("contentEncoding", Shape::Text),
    ("contentMediaType", Shape::Text),
    ("contentSchema", Shape::Schema),
    ("default", Shape::Any),
    // The name of `$defs` before 2019; still allowed.
    ("definitions", Shape::SchemaByName),
    ("dependentRequired", Shape::TextsByName),
    ("dependentSchemas", Shape::SchemaByName),
    ("deprecated", Shape::Flag),
    ("description", Shape::Text),
    ("else", Shape::Schema),
    ("enum", Shape::List),
    ("examples", Shape::List),
    ("exclusiveMaximum", Shape::Number),
    ("exclusiveMinimum", Shape::Number),
    ("format", Shape::Text),
    ("if", Shape::Schema),
    ("items", Shape::Schema),
    ("maxContains", Shape::Count),
    ("maxItems", Shape::Count),
    ("maxLength", Shape::Count),
    ("maxProperties", Shape::Count),
    ("maximum", Shape::Number),
    ("minContains", Shape::Count),
    ("minItems", Shape::Count),
    ("minLength", Shape::Count),
    ("minProperties", Shape::Count),
    ("minimum", Shape::Number),
    ("multipleOf", Shape::Positive),
    ("not", Shape::Schema),
    ("oneOf", Shape::Schemas),
    ("pattern", Shape::Text),
    ("patternProperties", Shape::SchemaByName),
    ("prefixItems", Shape::Schemas),
    ("properties", Shape::SchemaByName),
    ("propertyNames", Shape::Schema),
    ("readOnly", Shape::Flag),
    ("required", Shape::Texts),
    ("then", Shape::Schema),
    ("title", Shape::Text),
    ("type", Shape::Types),
    ("unevaluatedItems", Shape::Schema),
    ("unevaluatedProperties", Shape::Schema),
    ("uniqueItems", Shape::Flag),
    ("writeOnly", Shape::Flag),
];

/// The longest pointer to a schema, in bytes: each is kept while a schema is read.
const POINTER_LIMIT: usize = 1024;

/// The longest schema, in bytes.
pub(super) const LIMIT: usize = 64 << 10;

const TYPES: [&str; 7] = [
    "array", "boolean", "integer", "null", "number", "object", "string",
];

/// Keywords whose schemas judge the same value: a circle of these never ends.
const IN_PLACE: [&str; 9] = [
    "$ref",
    "allOf",
    "anyOf",
    "dependentSchemas",
    "else",
    "if",
    "not",
    "oneOf",
    "then",
];

/// A schema as it can stand at `place`, a reference of the document such as `#/components/schemas/a`.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn embed(schema: &Value, place: &str) -> Result<Value, String> {
    let bytes = schema.to_string().len();
    if bytes > LIMIT {
        return Err(format!("it has {bytes} bytes, the limit is {LIMIT}"));
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
    fn schema(&mut self, schema: &Value, at: String) -> Result<Value, String> {
        if at.len() > POINTER_LIMIT {
            let begin = &at[..at.floor_char_boundary(64)];
            return Err(format!(
                "a schema below `#{begin}` lies deeper than {POINTER_LIMIT} bytes of names"
            ));
        }
        self.schemas.insert(at.clone());
        let map = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(map) => map,
            _ => return Err(wrong(&at, "an object, `true` or `false`")),
        };
        let mut copy = Map::new();
        for (keyword, value) in map {
            let known = KEYWORDS.binary_search_by_key(&keyword.as_str(), |(name, _)| name);
            if let Ok(index) = known {
                let value = self.value(&at, keyword, KEYWORDS[index].1, value)?;
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
    ) -> Result<Value, String> {
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
            Shape::Refused => return Err(format!("`#{at}` changes what references mean")),
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
    ) -> Result<Value, String> {
        if IN_PLACE.contains(&keyword) {
            self.lead(owner, &at);
        }
        self.schema(value, at)
    }

    fn lead(&mut self, from: &str, to: &str) {
        let all = self.in_place.entry(from.to_owned()).or_default();
        all.push(to.to_owned());
    }

    fn reference(&mut self, owner: &str, at: &str, value: &Value) -> Result<Value, String> {
        let target = value.as_str().and_then(|text| text.strip_prefix('#'));
        let Some(target) = target else {
            return Err(wrong(at, "a reference to a place in the same schema"));
        };
        self.references.push((at.to_owned(), target.to_owned()));
        self.lead(owner, target);
        Ok(Value::from(format!("{}{target}", self.place)))
    }

    fn follow_references(&self) -> Result<(), String> {
        for (at, target) in &self.references {
            if !self.schemas.contains(target) {
                return Err(format!("`#{at}` leads to `#{target}`, which is no schema"));
            }
        }
        match self.circle() {
            Some(at) => Err(format!("`#{at}` refers to itself without an end")),
            None => Ok(()),
        }
    }

    /// A schema from which a way of schemas for the same value leads back to it.
    fn circle(&self) -> Option<&str> {
        let mut done = BTreeSet::new();
        for from in self.in_place.keys() {
            // The way to here, and what is left to look at behind each step.
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

impl Shape {
    /// Whether a value without schemas in it is of this kind.
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Texts => is_texts(value),
            Self::TextsByName => value
                .as_object()
                .is_some_and(|all| all.values().all(is_texts)),
            Self::Number => value.is_number(),
            Self::Positive => value.as_f64().is_some_and(|number| number > 0.0),
            Self::Count => value.is_u64(),
            Self::Flag => value.is_boolean(),
            Self::Types => match value {
                Value::String(name) => TYPES.contains(&name.as_str()),
                _ => !is_empty(value) && is_texts(value) && is_types(value),
            },
            Self::Any => true,
            Self::List => value.is_array(),
            _ => false,
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Texts => "a list of different texts",
            Self::TextsByName => "an object of lists of different texts",
            Self::Number => "a number",
            Self::Positive => "a number above zero",
            Self::Count => "a whole number that is not negative",
            Self::Flag => "`true` or `false`",
            Self::Types => "a type of JSON or a list of such",
            _ => "a list",
        }
    }
}

fn is_texts(value: &Value) -> bool {
    let mut seen = BTreeSet::new();
    let is_new = |it: &Value| it.as_str().is_some_and(|text| seen.insert(text.to_owned()));
    value.as_array().is_some_and(|all| all.iter().all(is_new))
}

fn is_types(value: &Value) -> bool {
    let is_type = |it: &Value| it.as_str().is_some_and(|name| TYPES.contains(&name));
    value.as_array().is_some_and(|all| all.iter().all(is_type))
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

fn wrong(at: &str, expected: &str) -> String {
    format!("`#{at}` must be {expected}")
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
    fn keywords_are_in_order_to_be_found() {
        assert!(KEYWORDS.is_sorted_by_key(|(name, _)| name));
    }

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
                "`#/$ref` leads to `#/required`, which is no schema",
            ),
            (
                json!({ "$ref": "#" }),
                "`#` refers to itself without an end",
            ),
            (
                json!({ "properties": { "a": { "allOf": [{ "not": { "$ref": "#/properties/a" } }] } } }),
                "`#/properties/a` refers to itself without an end",
            ),
        ] {
            assert_eq!(embed(&schema, "#/x").unwrap_err(), expected, "{schema}");
        }
    }

    #[test]
    fn a_schema_that_would_cost_much_is_refused() {
        let long = json!({ "properties": { ("x".repeat(2000)): {} } });
        let refused = embed(&long, "#/x").unwrap_err();
        assert!(
            refused.ends_with("lies deeper than 1024 bytes of names"),
            "{refused}"
        );
        let large = json!({ "title": "x".repeat(LIMIT) });
        let refused = embed(&large, "#/x").unwrap_err();
        assert_eq!(refused, "it has 65548 bytes, the limit is 65536");
        // Long chains are no circles, and take no time to tell.
        let link = |number| {
            let target = format!("#/$defs/{}", number + 1);
            (format!("{number}"), json!({ "$ref": target }))
        };
        let mut links: Map<_, _> = (0..1500).map(link).collect();
        links.insert("1500".to_owned(), json!(true));
        assert!(embed(&json!({ "$defs": links }), "#/x").is_ok());
    }
}
