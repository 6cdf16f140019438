//! Extractors of a request's address and parameters that answer with a problem document on failure.
//!
//! Absent on purpose: bodies of calls, which `calls` reads.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::request::Parts,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    problem::{Kind, Problem},
    receive::receive,
    shared::Shared,
};

/// The longest parameters of an administrative request, in bytes.
const LIMIT: usize = 64 << 10;

/// The variable parts of an address.
pub(super) struct Address<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Address<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(found)) => Ok(Self(found)),
            Err(wrong) => Err(Problem::new(Kind::BadParameters, wrong.body_text())),
        }
    }
}

/// The parameters of an administrative request: a JSON object, or nothing for an empty one.
pub(super) struct Parameters(pub(super) Value);

impl FromRequest<Arc<Shared>> for Parameters {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let body = receive(shared, &head, body, LIMIT).await?;
        parse(&body.bytes).map(Self)
    }
}

fn parse(body: &[u8]) -> Result<Value, Problem> {
    let wrong = |detail: String| Problem::new(Kind::BadParameters, detail);
    if body.trim_ascii().is_empty() {
        return Ok(json!({}));
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(wrong("the parameters must be a JSON object".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_an_object_or_nothing() {
        assert_eq!(parse(b" \n").unwrap(), json!({}));
        assert_eq!(parse(b"{\"a\": 1}").unwrap(), json!({ "a": 1 }));
        for text in ["[1]", "null", "{", "\"a\""] {
            assert_eq!(
                parse(text.as_bytes()).unwrap_err().kind,
                Kind::BadParameters,
                "{text}"
            );
        }
    }
}
