//! `/openapi.json`: the interface as an OpenAPI 3.1 document.
//!
//! What does not depend on the host lies in `openapi.json` beside this file; the kinds of
//! problems and the plugins are added here.
//!
//! Absent on purpose: what is served, which a test compares with this.

use serde_json::{Value, json};

use super::{problem::Kind, shared::Shared};

const FIXED: &str = include_str!("openapi.json");

/// The document of this host as it is now.
pub(super) fn document(shared: &Shared) -> Value {
    let mut document = fixed();
    // It is described where it is served.
    if !cfg!(feature = "metrics")
        && let Some(paths) = document["paths"].as_object_mut()
    {
        paths.remove("/metrics");
    }
    document["info"]["version"] = Value::from(env!("CARGO_PKG_VERSION"));
    let names: Vec<Value> = shared
        .door
        .host
        .status()
        .plugins
        .into_iter()
        .map(|it| Value::from(it.name))
        .collect();
    // JSON Schema has no empty choice.
    if !names.is_empty() {
        document["components"]["schemas"]["Plugin"]["examples"] = Value::from(names);
    }
    document
}

/// The part that is the same for every host.
fn fixed() -> Value {
    // The test below reads it.
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
