//! `/openapi.json`: the interface as an OpenAPI 3.1 document.
//!
//! The fixed part is `openapi.json` beside this file; the kinds of problems and the plugins are added
//! here.
//!
//! Absent on purpose: the routes themselves, which a test compares with this.

use serde_json::{Value, json};

use super::{problem::Kind, shared::Shared};

const FIXED: &str = include_str!("openapi.json");

/// The current document of this host.
pub(super) fn document(shared: &Shared) -> Value {
    let mut document = fixed();
    document["info"]["version"] = Value::from(env!("CARGO_PKG_VERSION"));
    let names: Vec<Value> = shared
        .door
        .host
        .status()
        .plugins
        .into_iter()
        .map(|it| Value::from(it.name))
        .collect();
    // JSON Schema permits no empty `enum`.
    if !names.is_empty() {
        document["components"]["schemas"]["Plugin"]["examples"] = Value::from(names);
    }
    document
}

/// The part that is the same for every host.
fn fixed() -> Value {
    // A test below parses it.
    let mut document: Value = serde_json::from_str(FIXED).unwrap_or_default();
    let types: Vec<String> = Kind::all()
        .map(|(name, ..)| format!("/problems/{name}"))
        .collect();
    document["components"]["schemas"]["Problem"]["properties"]["type"] =
        json!({ "type": "string", "enum": types });
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_part_is_a_document_with_every_kind_of_problem() {
        let document = fixed();
        assert_eq!(document["openapi"], "3.1.0");
        let types = &document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"];
        assert_eq!(types.as_array().unwrap().len(), Kind::all().count());
    }
}
