//! `/openapi.json`: the interface as an OpenAPI 3.1 document.
//!
//! The fixed part is `openapi.json` beside this file; the kinds of problems and the plugins are
//! added here. A method that a plugin describes has a path of its own; the others are called by the
//! path for any method.
//!
//! Absent on purpose: the routes themselves, which a test compares with this.

use std::sync::{Mutex, PoisonError};

use axum::body::Bytes;
use serde_json::{Map, Value, json};

use super::{
    descriptions::Outcome,
    operations::{Operation, Operations},
    problem::Kind,
};
use crate::bounded::plain_within;

const FIXED: &str = include_str!("openapi.json");

/// The path of a method that nobody describes.
const ANY: &str = "/plugins/{name}/{method}";

/// The most that all plugins together may say, in bytes.
const LIMIT: usize = 4 << 20;

/// The longest reason why a plugin is not described, in bytes.
const REASON_LIMIT: usize = 1024;

/// The document as it was written last, for readers who see all of it, which most of them do. To write it
/// takes longer than anything else that a reader can request.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<Option<(Plugins, Bytes)>>);

/// Plugins by name.
pub(super) type Plugins = Vec<(String, Outcome)>;

impl Written {
    /// The text for these plugins, if it was written for them last.
    pub(super) fn text_for(&self, plugins: &Plugins) -> Option<Bytes> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (written, text) = kept.as_ref()?;
        (written == plugins).then(|| text.clone())
    }

    /// Keeps it.
    pub(super) fn keep(&self, plugins: Plugins, text: Bytes) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((plugins, text));
    }
}

/// The document of a host with these plugins. Of each it has the methods that the reader may see.
pub(super) fn document(plugins: &[(String, Outcome)], sees: &dyn Fn(&str, &str) -> bool) -> Value {
    let mut document = fixed();
    // `openapi.json` describes addresses that this host may not serve.
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, is_served) in [
            ("/", cfg!(feature = "page")),
            ("/events", cfg!(feature = "page")),
            ("/metrics", cfg!(feature = "metrics")),
        ] {
            if !is_served {
                paths.remove(path);
            }
        }
    }
    document["info"]["version"] = Value::from(env!("CARGO_PKG_VERSION"));
    let names: Vec<Value> = plugins
        .iter()
        .map(|(name, _)| name.as_str().into())
        .collect();
    if !names.is_empty() {
        document["components"]["schemas"]["Plugin"]["examples"] = Value::from(names);
    }
    let mut left = LIMIT;
    for (name, outcome) in plugins {
        let summary = match outcome {
            Outcome::Nothing => continue,
            Outcome::Described(described) => {
                let sees = |method: &str| sees(name, method);
                add(&mut document, name, &described.operations, &sees, &mut left)
            }
            Outcome::Failed(reason) => {
                let reason = plain_within(reason, REASON_LIMIT);
                Some(format!("Not described: {reason}"))
            }
        };
        if let (Some(summary), Value::Array(tags)) = (summary, &mut document["tags"]) {
            tags.push(json!({ "name": tag(name), "description": summary }));
        }
    }
    document
}

/// Adds the methods of one plugin, and returns the description of its tag.
fn add(
    document: &mut Value,
    name: &str,
    operations: &Operations,
    sees: &dyn Fn(&str) -> bool,
    left: &mut usize,
) -> Option<String> {
    let template = document["paths"][ANY]["post"].clone();
    let mut left_out = operations.left_out.clone();
    let seen: Vec<_> = operations
        .all
        .iter()
        .filter(|it| sees(&it.method))
        .collect();
    for (index, operation) in seen.iter().enumerate() {
        let Some(rest) = left.checked_sub(operation.bytes) else {
            let rest = seen.len() - index;
            left_out.push(format!("{rest} methods: the document is too long"));
            break;
        };
        *left = rest;
        for (key, schema) in &operation.schemas {
            document["components"]["schemas"][key] = schema.clone();
        }
        let path = format!("/plugins/{name}/{}", operation.method);
        document["paths"][path] = json!({ "post": filled(&template, name, operation) });
    }
    if seen.is_empty() {
        return None;
    }
    let mut summary = "A plugin, as it describes itself.".to_owned();
    if !left_out.is_empty() {
        summary.push_str(&format!(" Left out: {}.", left_out.join("; ")));
    }
    Some(summary)
}

/// The operation of [`ANY`], filled in for one method.
fn filled(template: &Value, name: &str, method: &Operation) -> Value {
    let mut operation = template.clone();
    operation["tags"] = json!([tag(name)]);
    operation["operationId"] = format!("{name}.{}", method.method).into();
    operation["summary"] = match method.summary.as_str() {
        "" => format!("Call `{}`", method.method).into(),
        summary => summary.into(),
    };
    if let Value::Object(operation) = &mut operation {
        operation.remove("description");
    }
    if let Value::Array(parameters) = &mut operation["parameters"] {
        parameters.retain(|it| it["in"] != "path");
    }
    operation["requestBody"]["content"] = method.request.clone();
    operation["responses"]["200"]["content"] = method.reply.clone();
    operation
}

/// A plugin may be named like one of the document's own tags.
fn tag(plugin: &str) -> String {
    format!("plugins/{plugin}")
}

/// The part that is the same for every host.
fn fixed() -> Value {
    // A test below parses it.
    let mut document: Value =
        serde_json::from_str(FIXED).unwrap_or_else(|_| Value::Object(Map::new()));
    let types: Vec<String> = Kind::all()
        .map(|(name, ..)| format!("/problems/{name}"))
        .collect();
    document["components"]["schemas"]["Problem"]["properties"]["type"] =
        json!({ "type": "string", "enum": types });
    document
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hotmerge_meta::control::Description;

    use super::*;
    use crate::http::{descriptions::Described, operations};

    fn described(name: &str, count: usize) -> (String, Outcome) {
        let method = |number| json!({ "name": format!("m{number}"), "summary": "x".repeat(900) });
        let methods: Vec<_> = (0..count).map(method).collect();
        let text = json!({ "methods": methods }).to_string();
        let description = Description::read(text.as_bytes()).unwrap();
        let operations = operations::of(name, &description);
        let described = Described {
            description,
            operations,
        };
        (name.to_owned(), Outcome::Described(Arc::new(described)))
    }

    #[test]
    fn the_fixed_document_lists_every_kind_of_problem() {
        let document = fixed();
        assert_eq!(document["openapi"], "3.1.0");
        let types = &document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"];
        assert_eq!(types.as_array().unwrap().len(), Kind::all().count());
        assert!(document["paths"][ANY]["post"].is_object());
    }

    #[test]
    fn described_methods_have_paths_of_their_own() {
        let plugins = [
            described("p", 2),
            ("q".to_owned(), Outcome::Failed("it\nhangs".into())),
        ];
        let document = document(&plugins, &|_, method| method != "m1");
        let operation = &document["paths"]["/plugins/p/m0"]["post"];
        assert_eq!(operation["operationId"], "p.m0");
        assert!(operation["responses"]["404"].is_object());
        assert!(document["paths"]["/plugins/p/m1"].is_null());
        let tags = document["tags"].as_array().unwrap();
        let last = json!({ "name": "plugins/q", "description": "Not described: it\\nhangs" });
        assert_eq!(tags.last(), Some(&last));
    }

    #[test]
    fn however_many_plugins_the_document_is_bounded() {
        let plugins: Vec<_> = (0..100)
            .map(|it| described(&format!("p{it}"), 200))
            .collect();
        let document = document(&plugins, &|_, _| true);
        let bytes = document.to_string().len();
        assert!(bytes < LIMIT + (256 << 10), "{bytes}");
        let last = &document["tags"].as_array().unwrap().last().unwrap()["description"];
        let said = last.as_str().unwrap();
        assert!(said.contains("methods: the document is too long"), "{said}");
    }
}
