//! `POST /plugins/NAME/METHOD`: calls of plugins.
//!
//! The body is passed to the plugin unchanged, and so is the plugin's reply to the client. `quick` decides
//! where a call runs; if the client disconnects, hyper drops the request's future, which cancels the
//! call.
//!
//! Absent on purpose: the meaning of a body.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Extension, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};
use hotmerge_abi::CallContext;
use hotmerge_daemon::{Answered, Call, CallError, Cancel, Media, Plugin, Reply, context};
use hotmerge_meta::{Digest, control::TraceParent};

use super::{
    extract::Address,
    problem::{Kind, Problem},
    receive::receive,
    shared::Shared,
    visitor::Visitor,
};

/// How long the client waits, in milliseconds.
pub(super) const DEADLINE: HeaderName = HeaderName::from_static("hotmerge-deadline-ms");
/// Which version answered, counted from 1.
pub(super) const GENERATION: HeaderName = HeaderName::from_static("hotmerge-generation");
/// The hash of the version that answered.
pub(super) const HASH: HeaderName = HeaderName::from_static("hotmerge-hash");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Cancels the call when dropped.
struct WhileConnected(Arc<Cancel>);

impl Drop for WhileConnected {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Calls a plugin.
pub(super) async fn call(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
    Address((name, method)): Address<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    visitor.may_call(&shared, &name, &method)?;
    // If there is no room now, the client need not send the body.
    shared.calls.check(&visitor.client, 1)?;
    let (head, body) = request.into_parts();
    let mut context = traced(&head.headers);
    let deadline = deadline(&head.headers, shared.config.deadline())?;
    shared.wait_ready(deadline).await;
    let plugin = find(&shared, &name)?;
    let sent = listed(&head.headers, header::CONTENT_TYPE)?;
    let wanted = listed(&head.headers, header::ACCEPT)?;
    let body = receive(&shared, &head, body, shared.config.max_body_bytes).await?;
    let place = shared.calls.take(&visitor.client, 1)?;
    // The time for sending the body does not count.
    context.deadline_ns = hotmerge_daemon::context(Some(deadline)).deadline_ns;
    let limit = shared.config.max_reply_bytes;
    let cancel = Arc::new(Cancel::default());
    let connected = WhileConnected(Arc::clone(&cancel));
    let called = method.clone();
    let run = move || {
        let media = (sent.as_str(), wanted.as_str());
        let outcome = run(
            &plugin,
            &context,
            &method,
            (&body.bytes, media),
            &cancel,
            limit,
        );
        drop((place, body));
        outcome
    };
    let outcome = shared.quick.run(&name, &called, run).await;
    drop(connected);
    let ((answered, hash), reply) = outcome??;
    Ok(respond(answered, hash, reply, &context, &head.headers))
}

type Outcome = Result<((Answered, Digest), Reply), Problem>;

fn run(
    plugin: &Plugin,
    context: &CallContext,
    method: &str,
    (body, (sent, wanted)): (&[u8], (&str, &str)),
    cancel: &Cancel,
    limit: usize,
) -> Outcome {
    let mut reply = Reply::with_limit(limit);
    let media = Media::new(sent, wanted)
        .map_err(|error| Problem::new(Kind::BadParameters, error.to_string()))?;
    let call = Call::new(context, method, body)
        .with_media(media)
        .cancelled_by(cancel);
    let answered = plugin.call_and_identify(&call, &mut reply)?;
    Ok((answered, reply))
}

fn find(shared: &Shared, name: &str) -> Result<Arc<Plugin>, Problem> {
    let host = &shared.door.host;
    host.plugin(name).ok_or_else(|| {
        // A plugin that was always refused has a status but no handle.
        let is_known = host.status().plugins.iter().any(|it| it.name == name);
        match is_known {
            true => CallError::NotLoaded(name.to_owned()).into(),
            false => Problem::no_plugin(name),
        }
    })
}

/// All values of a header joined into one list, which HTTP defines as equivalent; empty without any.
fn listed(headers: &HeaderMap, name: HeaderName) -> Result<String, Problem> {
    let values: Result<Vec<_>, _> = headers
        .get_all(&name)
        .into_iter()
        .map(|value| str::from_utf8(value.as_bytes()))
        .collect();
    values.map(|values| values.join(", ")).map_err(|_| {
        Problem::new(
            Kind::BadParameters,
            format!("the header `{name}` is not UTF-8"),
        )
    })
}

/// The trace that the client sent, or a new one.
fn traced(headers: &HeaderMap) -> CallContext {
    let mut context = context(None);
    // W3C: an invalid traceparent starts a new trace.
    let parent = headers
        .get(TRACEPARENT)
        .and_then(|text| text.to_str().ok())
        .and_then(|text| text.parse::<TraceParent>().ok());
    if let Some(parent) = parent {
        context.trace_id = parent.trace_id;
        context.trace_flags = parent.flags.into();
    }
    context
}

fn deadline(headers: &HeaderMap, longest: Duration) -> Result<Duration, Problem> {
    let Some(text) = headers.get(DEADLINE) else {
        return Ok(longest);
    };
    let ms = text.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    let ms = ms.ok_or_else(|| {
        let detail = "`Hotmerge-Deadline-Ms` must be a number of milliseconds";
        Problem::new(Kind::BadParameters, detail)
    })?;
    Ok(Duration::from_millis(ms).min(longest))
}

fn respond(
    answered: Answered,
    hash: Digest,
    reply: Reply,
    context: &CallContext,
    asked: &HeaderMap,
) -> Response {
    // The plugin chooses it; it may be no valid header.
    let media_type = HeaderValue::from_str(reply.content_type())
        .ok()
        .filter(|it| !it.is_empty())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let mut response = Response::new(Body::from(reply.into_bytes()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.insert(GENERATION, answered.generation.into());
    insert(headers, HASH, hash.to_string());
    let own = TraceParent {
        trace_id: context.trace_id,
        span_id: context.span_id,
        flags: context.trace_flags as u8,
    };
    insert(headers, TRACEPARENT, own.to_string());
    if let Some(state) = asked.get(TRACESTATE) {
        headers.insert(TRACESTATE, state.clone());
    }
    response
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}
