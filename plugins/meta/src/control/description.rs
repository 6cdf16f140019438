//! A plugin's description of itself: its methods, their payloads, and a sentence each.
//!
//! It is a plugin's word: read with limits, and what a newer contract adds is skipped.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest document that is read, in bytes.
const LIMIT: usize = 1 << 20;

/// A plugin's description of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Its methods, in its order.
    pub methods: Vec<DescribedMethod>,
}

/// One method.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DescribedMethod {
    /// The name in calls.
    pub name: String,
    /// What it does, in a sentence.
    #[serde(default)]
    pub summary: String,
    /// What it takes.
    #[serde(default)]
    pub request: Payload,
    /// What it answers.
    #[serde(default)]
    pub reply: Payload,
    /// A request of the first media type that succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

/// A request or a reply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// Its media types, the usual one first.
    #[serde(default)]
    pub content_types: Vec<String>,
    /// The JSON schema of a payload that is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
}

/// A document that is not a description.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// It is longer than anybody reads.
    #[error("it has {0} bytes, the limit is {LIMIT}")]
    TooLong(usize),
    /// It is not the document that the contract defines.
    #[error("it is not what the contract defines: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A method has the name of another, or none.
    #[error("the method name `{0}` is empty or not unique")]
    Name(String),
    /// A schema is not JSON.
    #[error("the {payload} schema of `{method}` is not JSON: {error}")]
    Schema {
        /// Whose schema it is.
        method: String,
        /// Of the request or of the reply.
        payload: &'static str,
        /// Why.
        error: serde_json::Error,
    },
}

impl Description {
    /// Reads the document that a plugin wrote, in which schemas are text.
    ///
    /// # Errors
    /// What is not as the contract defines it.
    pub fn read(document: &[u8]) -> Result<Self, DescriptionError> {
        if document.len() > LIMIT {
            return Err(DescriptionError::TooLong(document.len()));
        }
        let mut read: Self = serde_json::from_slice(document)?;
        let mut names = std::collections::BTreeSet::new();
        for method in &mut read.methods {
            if method.name.is_empty() || !names.insert(method.name.clone()) {
                return Err(DescriptionError::Name(method.name.clone()));
            }
            let payloads = [
                ("request", &mut method.request),
                ("reply", &mut method.reply),
            ];
            for (payload, part) in payloads {
                if let Some(Value::String(text)) = &part.schema {
                    let parsed = serde_json::from_str(text);
                    part.schema = Some(parsed.map_err(|error| DescriptionError::Schema {
                        method: method.name.clone(),
                        payload,
                        error,
                    })?);
                }
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_are_read_and_unknown_fields_skipped() {
        let document = json!({
            "new": 1,
            "methods": [{ "name": "a", "request": { "schema": "{\"type\":\"object\"}" } }],
        });
        let read = Description::read(document.to_string().as_bytes()).unwrap();
        let method = &read.methods[0];
        assert_eq!(method.request.schema, Some(json!({ "type": "object" })));
        assert!(method.summary.is_empty() && method.reply.content_types.is_empty());
    }

    #[test]
    fn a_bad_document_is_refused_with_the_place() {
        let long = format!("{{\"methods\":[]}}{}", " ".repeat(LIMIT));
        for (document, expected) in [
            ("[]x", "it is not what the contract defines: "),
            (
                "{}",
                "it is not what the contract defines: missing field `methods`",
            ),
            (
                r#"{"methods":[{"name":"a"},{"name":"a"}]}"#,
                "the method name `a` is empty or not unique",
            ),
            (
                r#"{"methods":[{"name":"a","reply":{"schema":"{"}}]}"#,
                "the reply schema of `a` is not JSON: ",
            ),
            (&long, "it has 1048590 bytes, the limit is 1048576"),
        ] {
            let refused = Description::read(document.as_bytes()).unwrap_err();
            assert!(refused.to_string().starts_with(expected), "{refused}");
        }
    }
}
