//! The keywords of JSON Schema 2020-12, and what the value of each must be.
//!
//! Absent on purpose: schemas within schemas, and references.

use std::collections::BTreeSet;

use serde_json::Value;

/// What a keyword's value must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
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

/// Whether the schemas of a keyword judge the same value as the schema that has it.
pub(super) fn is_in_place(keyword: &str) -> bool {
    IN_PLACE.contains(&keyword)
}

impl Shape {
    /// What the value of this keyword must be, if JSON Schema has it.
    pub(super) fn of(keyword: &str) -> Option<Self> {
        let found = KEYWORDS.binary_search_by_key(&keyword, |(name, _)| name);
        found.ok().map(|index| KEYWORDS[index].1)
    }

    /// Whether a value without schemas in it is of this kind.
    pub(super) fn fits(self, value: &Value) -> bool {
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

    pub(super) fn expected(self) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_in_order_to_be_found() {
        assert!(KEYWORDS.is_sorted_by_key(|(name, _)| name));
    }
}
