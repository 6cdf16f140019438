//! Bodies of requests, within the limits of size and time.
//!
//! Invariant: a client that sends its body takes nothing but room for the bytes that it has sent. It takes
//! no call's place, and its connection counts as idle: it makes room for others before those that
//! wait for an answer do.
//!
//! Absent on purpose: what is in a body.

use std::{error::Error, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{header, request::Parts},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::{
    connections::Connection,
    problem::{Kind, Problem},
    share::Place,
    shared::Shared,
    visitor::Visitor,
};

/// The body of a request, and the room that it takes.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    _place: Place,
}

/// Reads the body of a request.
pub(super) async fn receive(
    shared: &Shared,
    head: &Parts,
    body: Body,
    limit: usize,
) -> Result<Received, Problem> {
    let too_large = || Problem::new(Kind::TooLarge, format!("more than {limit} bytes"));
    let announced = head
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|text| text.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|announced| announced > limit) {
        return Err(too_large());
    }
    let connection = head.extensions.get::<Arc<Connection>>();
    let _waiting = connection.map(|connection| connection.awaits_client());
    let body = Limited::new(body, limit);
    let Ok(read) = tokio::time::timeout(shared.config.body(), read(shared, head, body)).await
    else {
        let detail = format!("not within {} ms", shared.config.body_ms);
        return Err(Problem::new(Kind::TooSlow, detail));
    };
    read.map_err(|failed| match failed {
        Failed::Problem(problem) => problem,
        Failed::Body(error) if error.is::<LengthLimitError>() => too_large(),
        Failed::Body(error) => Problem::new(Kind::BadParameters, error.to_string()),
    })
}

enum Failed {
    Problem(Problem),
    Body(Box<dyn Error + Send + Sync>),
}

async fn read(shared: &Shared, head: &Parts, mut body: Limited<Body>) -> Result<Received, Failed> {
    let visitor = head.extensions.get::<Visitor>().ok_or_else(|| {
        let detail = "the client's identity is unknown";
        Failed::Problem(Problem::new(Kind::Internal, detail))
    })?;
    let mut place = shared
        .bodies
        .take(&visitor.client, 0)
        .map_err(Failed::Problem)?;
    let mut pieces: Vec<Bytes> = Vec::new();
    while let Some(frame) = body.frame().await {
        // What comes after a body in chunks is not part of it.
        if let Ok(piece) = frame.map_err(Failed::Body)?.into_data() {
            place.grow(piece.len()).map_err(Failed::Problem)?;
            pieces.push(piece);
        }
    }
    // One piece needs no copy.
    let bytes = match pieces.len() {
        1 => pieces.swap_remove(0),
        _ => pieces.concat().into(),
    };
    Ok(Received {
        bytes,
        _place: place,
    })
}
