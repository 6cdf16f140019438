//! What is where.
//!
//! | address | what |
//! | --- | --- |
//! | `POST /plugins/NAME/METHOD` | a call |
//! | `GET /plugins`, `/plugins/NAME`, `/plugins/NAME/history`, `/status` | what runs and what happened |
//! | `POST /admin/reload`, `/admin/plugins/NAME/{rollback,pin,unpin}` | administration |
//! | `GET /metrics` | what Prometheus scrapes (feature `metrics`) |
//! | `GET /healthz`, `/readyz` | for load balancers |
//! | `GET /openapi.json`, `/problems/NAME` | what there is |
//!
//! Invariant: before anything but the two health checks, it is known who asks.
//!
//! Absent on purpose: calls of plugins, limits of connections.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Extension, State},
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use hotmerge_daemon::{Cancel, config::Role};
use hotmerge_meta::control::{ErrorObjectOwned, code, method};
use serde_json::{Value, json, value::RawValue};

use super::{
    calls,
    extract::{Address, Parameters},
    guard, openapi,
    problem::{Kind, Problem},
    shared::{Peer, Shared},
    visitor::Visitor,
};
use crate::{
    answer::{self, Method},
    roles::Wish,
};

/// The longest parameters of an administrative request, in bytes.
const PARAMS_LIMIT: usize = 64 << 10;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    with_metrics(Router::new())
        .route("/plugins/{name}/{method}", post(calls::call).get(of_plugin))
        .route("/plugins/{name}", get(plugin))
        .route("/plugins", get(plugins))
        .route("/status", get(status))
        .route("/admin/reload", post(reload))
        .route("/admin/plugins/{name}/{verb}", post(administer))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/openapi.json", get(described))
        .route("/problems/{kind}", get(explain))
        .fallback(|| async { Problem::new(Kind::NoRoute, "see `/openapi.json`") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Kind::WrongMethod, "the header `Allow` has those it takes")
        })
        .layer(DefaultBodyLimit::max(PARAMS_LIMIT))
        .with_state(shared)
}

#[cfg(feature = "metrics")]
fn with_metrics(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    router.route("/metrics", get(super::metrics::scrape))
}

#[cfg(not(feature = "metrics"))]
fn with_metrics(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    router
}

/// Answers one request.
pub(super) async fn answer(
    shared: Arc<Shared>,
    mut router: Router,
    peer: &Peer,
    mut request: Request<Body>,
) -> Response {
    shared.door.tally.requested();
    let visitor = guard::check(request.headers(), &shared.config.names)
        .and_then(|()| Visitor::of(&shared, peer, request.headers()));
    let mut response = match visitor {
        Ok(visitor) => {
            request.extensions_mut().insert(visitor);
            match tower_service::Service::call(&mut router, request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
        Err(problem) => problem.into_response(),
    };
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// A caller that nobody watches: hyper does that.
struct Unwatched;

impl answer::Client for Unwatched {
    fn while_connected(&self, _: &Arc<Cancel>, run: &mut dyn FnMut()) -> io::Result<()> {
        run();
        Ok(())
    }
}

/// Has the control interface answer, off the threads that serve connections.
async fn ask(
    shared: Arc<Shared>,
    visitor: Visitor,
    name: &'static str,
    params: Option<Value>,
) -> Result<Response, Problem> {
    let run = move || {
        let internal = |error: String| Problem::new(Kind::Internal, error);
        let method = Method::find(name).ok_or_else(|| internal(format!("no method `{name}`")))?;
        let params = params
            .map(|params| RawValue::from_string(params.to_string()))
            .transpose()
            .map_err(|error| internal(error.to_string()))?;
        let answer = method.answer(&shared.door, &visitor.who, &Unwatched, params.as_deref());
        answer.map_err(|error| failed(&visitor, &error))
    };
    let answer = tokio::task::spawn_blocking(run)
        .await
        .map_err(|error| Problem::new(Kind::Internal, error.to_string()))??;
    let mut response = Response::new(Body::from(Box::<str>::from(answer).into_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    let fresh = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, fresh);
    Ok(response)
}

fn failed(visitor: &Visitor, error: &ErrorObjectOwned) -> Problem {
    let kind = match error.code() {
        code::DENIED if visitor.is_anonymous => Kind::Unauthenticated,
        code::DENIED => Kind::Forbidden,
        code::INVALID_PARAMS => Kind::BadParameters,
        code::NOT_POSSIBLE => Kind::NotPossible,
        code::NO_PLUGIN => Kind::NoPlugin,
        _ => Kind::Internal,
    };
    Problem::new(kind, error.message())
}

async fn status(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Response, Problem> {
    ask(shared, visitor, method::STATUS, None).await
}

async fn plugins(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Response, Problem> {
    visitor.insist(&shared, Wish::Role(Role::Read), method::STATUS)?;
    Ok(Json(shared.door.host.status().plugins).into_response())
}

/// One plugin. Its tag is that of the version that is live.
async fn plugin(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
    Address(name): Address<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    visitor.insist(&shared, Wish::Role(Role::Read), method::STATUS)?;
    let status = shared.door.host.status();
    let found = status.plugins.into_iter().find(|it| it.name == name);
    let found = found
        .ok_or_else(|| Problem::new(Kind::NoPlugin, format!("no plugin `{name}` is known")))?;
    let hash = found
        .hash
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    let tag = format!("W/\"{}-{hash}-{}\"", found.generation, found.state);
    let known = headers.get(header::IF_NONE_MATCH);
    let is_known = known
        .and_then(|tags| tags.to_str().ok())
        .is_some_and(|tags| tags == "*" || tags.split(',').any(|it| it.trim() == tag));
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Json(found).into_response(),
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// `GET /plugins/NAME/history`; every other second part is a method, which takes `POST`.
async fn of_plugin(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
    Address((name, part)): Address<(String, String)>,
) -> Result<Response, Problem> {
    if part != "history" {
        let detail = "methods of plugins are called with POST";
        return Err(Problem {
            allow: Some("POST"),
            ..Problem::new(Kind::WrongMethod, detail)
        });
    }
    let params = json!({ "plugin": name });
    ask(shared, visitor, method::HISTORY, Some(params)).await
}

async fn reload(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
    Parameters(params): Parameters,
) -> Result<Response, Problem> {
    ask(shared, visitor, method::RELOAD, Some(params)).await
}

async fn administer(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
    Address((name, verb)): Address<(String, String)>,
    Parameters(mut params): Parameters,
) -> Result<Response, Problem> {
    let method = match verb.as_str() {
        "rollback" => method::ROLLBACK,
        "pin" => method::PIN,
        "unpin" => method::UNPIN,
        _ => {
            let detail = "plugins can be sent `rollback`, `pin` and `unpin`";
            return Err(Problem::new(Kind::NoRoute, detail));
        }
    };
    params["plugin"] = Value::String(name);
    ask(shared, visitor, method, Some(params)).await
}

/// Whether the plugins that must run do.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let status = shared.door.host.status();
    let is_wanted = |name: &str| {
        let wanted = &shared.config.ready;
        wanted.is_empty() || wanted.iter().any(|it| it.as_str() == name)
    };
    let live = |name: &str| {
        let found = status.plugins.iter().find(|it| it.name == name);
        found.is_some_and(|it| it.hash.is_some())
    };
    let installed = status.plugins.iter().map(|it| it.name.as_str());
    let named = shared.config.ready.iter().map(|it| it.as_str());
    let missing: Vec<&str> = match shared.config.ready.is_empty() {
        true => installed.filter(|it| is_wanted(it) && !live(it)).collect(),
        false => named.filter(|it| !live(it)).collect(),
    };
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let detail = format!("not live: {}", missing.join(", "));
    Problem::new(Kind::NotLive, detail).into_response()
}

async fn described(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(openapi::document(&shared))
}

async fn explain(Address(kind): Address<String>) -> Result<String, Problem> {
    let (title, help) = Kind::explain(&kind)
        .ok_or_else(|| Problem::new(Kind::NoRoute, "there is no such kind of problem"))?;
    Ok(format!("{title}. {help}\n"))
}
