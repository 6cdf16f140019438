//! `GET /metrics`: what Prometheus scrapes.
//!
//! Absent on purpose: which metrics there are, which `hotmerge-observe` knows.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Extension, State},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use hotmerge_daemon::config::Role;
use hotmerge_observe::metrics::{Encoding, Scrape};
use mediatype::{MediaType, MediaTypeList, Name, ReadParams as _};

use super::{pool::on_a_thread, problem::Problem, shared::Shared, visitor::Visitor};
use crate::roles::Access;

/// The name of such requests in refusals and the audit log.
const METRICS: &str = "metrics";

/// Answers a scrape.
pub(super) async fn scrape(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    visitor.authorize(&shared, Access::Role(Role::Read), METRICS)?;
    let encoding = accepted(&headers);
    // It reads files of each worker below `/proc`.
    let write = move || {
        let status = shared.door.status_for(&visitor.who);
        let figures = shared.door.host.figures();
        Scrape { status, figures }.write(encoding)
    };
    let text = on_a_thread(write).await?.map_err(Problem::internal)?;
    let mut response = Response::new(Body::from(text));
    let answer = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, encoding.content_type()),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "accept"),
    ] {
        answer.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// OpenMetrics for those who ask for it and like the older format no better, the older format for
/// everybody else: people and simple programs ask for nothing.
fn accepted(headers: &HeaderMap) -> Encoding {
    let lines = headers.get_all(header::ACCEPT);
    let lines = lines.iter().filter_map(|line| line.to_str().ok());
    let (mut open, mut text) = (0.0, 0.0);
    for range in lines.flat_map(MediaTypeList::new).flatten() {
        let liking = match (range.ty.as_str(), range.subty.as_str()) {
            ("application", "openmetrics-text") => &mut open,
            ("text", "plain") => &mut text,
            _ => continue,
        };
        *liking = quality(&range).max(*liking);
    }
    match open > 0.0 && open >= text {
        true => Encoding::OpenMetrics,
        false => Encoding::Text,
    }
}

/// How well a type is liked, from 0 to 1.
fn quality(range: &MediaType<'_>) -> f32 {
    let given = range.get_param(Name::new_unchecked("q"));
    given.map_or(1.0, |value| value.as_str().parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(accept: &[&str]) -> Encoding {
        let mut headers = HeaderMap::new();
        for line in accept {
            headers.append(header::ACCEPT, line.parse().unwrap());
        }
        accepted(&headers)
    }

    #[test]
    fn a_scrape_gets_the_format_it_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(answered(&[prometheus]), Encoding::OpenMetrics);
        assert_eq!(
            answered(&["text/plain;q=0.2", "application/openmetrics-text;q=0.5"]),
            Encoding::OpenMetrics
        );
        for accept in [
            &[][..],
            &["*/*"],
            &["text/html"],
            &["text/plain;version=0.0.4"],
            &["application/openmetrics-text;q=0"],
            &["application/openmetrics-text;q=0.1,text/plain"],
            &["application/openmetrics-text;q=none"],
            &[";;,"],
        ] {
            assert_eq!(answered(accept), Encoding::Text, "{accept:?}");
        }
    }
}
