//! `GET /`: the status page, and `GET /events`, which notifies it of changes.
//!
//! Invariant: the page runs no script and applies no style but its own, whatever plugins say: its policy names
//! both by their hashes.
//!
//! Absent on purpose: the page's contents, which `document` has.

mod document;
mod figure;
mod text;
mod timeline;

use std::{
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Extension, State},
    http::{HeaderValue, header},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hotmerge_daemon::config::Role;
use hyper::body::Frame;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use self::document::View;
use super::{
    live::Follower,
    pool::on_a_thread,
    problem::{Kind, Problem},
    shared::Shared,
    visitor::Visitor,
};
use crate::roles::Access;

/// The names of requests for page and events, in refusals and the audit log.
const PAGE: &str = "page";
const EVENTS: &str = "events";

/// The most changes that the page shows.
const CHANGES: usize = 100;

/// The shortest time from one event to the next.
const GAP: Duration = Duration::from_millis(500);

/// How long one stream of events may last: a client that is gone without a word must not keep its place.
const LONGEST: Duration = Duration::from_secs(15 * 60);

const ROLE: Access<'static> = Access::Role(Role::Read);

/// What a browser may do for the page.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(document::STYLE),
        hash(document::SCRIPT),
    )
});

/// Answers with the page.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Response, Problem> {
    visitor.authorize(&shared, ROLE, PAGE)?;
    // It reads files of each worker below `/proc`.
    let write = move || {
        // Before the status: a change in between makes the page old, never too new.
        let mark = shared.live.mark();
        let host = &shared.door.host;
        let view = View {
            status: shared.door.status_for(&visitor.who),
            figures: host.figures(),
            changes: host.changes(CHANGES),
            now: Timestamp::now(),
        };
        view.render(&mark).into_string()
    };
    let text = on_a_thread(write).await?;
    let mut response = Response::new(Body::from(text));
    let policy = HeaderValue::from_str(&POLICY).map_err(Problem::internal)?;
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        // For browsers that do not know `frame-ancestors`.
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        answer.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Answers with a stream of events, one for each time that the page has something newer to show.
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Response, Problem> {
    visitor.authorize(&shared, ROLE, EVENTS)?;
    let follower = shared.live.follow().ok_or_else(|| {
        let detail = "as many clients as this host serves follow its changes already";
        Problem::new(Kind::TooManyFollowers, detail)
    })?;
    let (to, events) = mpsc::channel(1);
    tokio::spawn(tell(shared, visitor, follower, to));
    let mut response = Response::new(Body::new(Events(events)));
    let answer = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        answer.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Tells a client of changes until it is gone, may no longer know of them, or the host ends.
async fn tell(
    shared: Arc<Shared>,
    visitor: Visitor,
    mut follower: Follower,
    to: mpsc::Sender<Bytes>,
) {
    let end = Instant::now() + LONGEST;
    loop {
        let mark = tokio::select! {
            mark = follower.next() => mark,
            () = to.closed() => None,
            () = sleep_until(end) => None,
        };
        let Some(mark) = mark.filter(|_| visitor.may(&shared, ROLE)) else {
            return;
        };
        let event = format!("event: change\nretry: 3000\ndata: {mark}\n\n");
        // An event that waits for its reader is as good as the next one.
        if let Err(mpsc::error::TrySendError::Closed(_)) = to.try_send(event.into()) {
            return;
        }
        tokio::select! {
            () = sleep(GAP) => {}
            () = follower.ended() => return,
        }
    }
}

/// The events as the body of an answer.
struct Events(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let event = self.0.poll_recv(context);
        event.map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
