//! The addresses and their handlers.
//!
//! | address | what |
//! | --- | --- |
//! | `POST /plugins/NAME/METHOD` | a call |
//! | `GET /plugins`, `/plugins/NAME`, `/plugins/NAME/history`, `/status` | what runs and what happened |
//! | `POST /admin/reload`, `/admin/plugins/NAME/{rollback,pin,unpin}` | administration |
//! | `GET /`, `/events` | the status page, and when it changes (feature `page`) |
//! | `GET /metrics` | what Prometheus scrapes (feature `metrics`) |
//! | `GET /healthz`, `/readyz` | for load balancers |
//! | `GET /openapi.json`, `/problems/NAME` | documentation of the interface |
//!
//! Invariant: the client is identified before any handler but the two health checks runs.
//!
//! Absent on purpose: calls of plugins, limits of connections.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Extension, State},
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use hotmerge_daemon::{Cancel, config::Role};
use hotmerge_meta::control::{DescribedMethod, ErrorObjectOwned, PluginStatus, code, method};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;

use super::{
    calls,
    descriptions::{self, Outcome},
    extract::{Address, Parameters},
    framing, guard, openapi,
    pool::on_a_thread,
    problem::{Kind, Problem},
    shared::{Peer, Shared},
    visitor::Visitor,
};
use crate::{
    answer::{self, Method, Weight},
    roles::Access,
};

pub(super) fn router(shared: Arc<Shared>) -> Router {
    with_page(with_metrics(Router::new()))
        .route("/plugins/{name}/{method}", post(calls::call).get(of_plugin))
        .route("/plugins/{name}", get(plugin))
        .route("/plugins", get(plugins))
        .route("/status", get(status))
        .route("/admin/reload", post(reload))
        .route("/admin/plugins/{name}/{verb}", post(administer))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/openapi.json", get(document))
        .route("/problems/{kind}", get(explain))
        .fallback(|| async { Problem::new(Kind::NoRoute, "see `/openapi.json`") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                Kind::WrongMethod,
                "the header `Allow` lists the accepted methods",
            )
        })
        .with_state(shared)
}

#[cfg(feature = "page")]
fn with_page(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    router
        .route("/", get(super::page::show))
        .route("/events", get(super::page::events))
}

#[cfg(not(feature = "page"))]
fn with_page(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    router
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
    let visitor = framing::check(request.method(), request.headers())
        .and_then(|()| guard::check(request.headers(), &shared.config.names))
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

/// A client whose disconnection hyper notices.
struct Unwatched;

impl answer::Client for Unwatched {
    fn while_connected(&self, _: &Arc<Cancel>, run: &mut dyn FnMut()) -> io::Result<()> {
        run();
        Ok(())
    }
}

/// Answers through the control interface.
async fn ask(
    shared: Arc<Shared>,
    visitor: Visitor,
    name: &'static str,
    params: Option<Value>,
) -> Result<Response, Problem> {
    let run = move || {
        let unknown = || Problem::internal(format!("no method `{name}`"));
        let method = Method::find(name).ok_or_else(unknown)?;
        let params = params
            .map(|params| RawValue::from_string(params.to_string()))
            .transpose()
            .map_err(Problem::internal)?;
        let permitted = method.permit(&shared.door, &visitor.who, params.as_deref());
        let answer = permitted.and_then(|permitted| {
            let _place = match permitted.weight() {
                Weight::Waiting => match shared.waiting.take(&visitor.client, 1) {
                    Ok(place) => Some(place),
                    Err(_) => return Err(permitted.refuse_as_busy()),
                },
                Weight::Call | Weight::Following | Weight::Quick => None,
            };
            permitted.answer(&Unwatched)
        });
        answer.map_err(|error| failed(&visitor, &error))
    };
    let answer = on_a_thread(run).await??;
    Ok(json_text(Box::<str>::from(answer).into_string()))
}

/// A JSON document that no cache may keep: it depends on the client and on the moment.
fn json_text(text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    let fresh = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, fresh);
    response
}

fn failed(visitor: &Visitor, error: &ErrorObjectOwned) -> Problem {
    let kind = match error.code() {
        code::DENIED if visitor.is_anonymous => Kind::Unauthenticated,
        code::DENIED => Kind::Forbidden,
        code::INVALID_PARAMS => Kind::BadParameters,
        code::NOT_POSSIBLE => Kind::NotPossible,
        code::NO_PLUGIN => Kind::NoPlugin,
        code::BUSY => Kind::Busy,
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
    visitor.authorize(&shared, Access::Role(Role::Read), method::STATUS)?;
    let status = shared.door.status_for(&visitor.who);
    Ok(Json(status.plugins).into_response())
}

/// One plugin. The entity tag is that of the live version.
async fn plugin(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
    Address(name): Address<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    visitor.authorize(&shared, Access::Role(Role::Read), method::STATUS)?;
    let status = shared.door.status_for(&visitor.who);
    let found = status.plugins.into_iter().find(|it| it.name == name);
    let found = found.ok_or_else(|| Problem::no_plugin(&name))?;
    let until = Instant::now() + descriptions::PATIENCE;
    let host = &shared.door.host;
    let outcome = shared.descriptions.of(host, &found, until).await;
    let tag = tag(&found, &outcome);
    let known = headers.get(header::IF_NONE_MATCH);
    let is_known = known
        .and_then(|tags| tags.to_str().ok())
        .is_some_and(|tags| tags == "*" || tags.split(',').any(|it| it.trim() == tag));
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Json(WithMethods::of(found, &outcome)).into_response(),
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

fn tag(status: &PluginStatus, outcome: &Outcome) -> String {
    let hash = status
        .hash
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    let described = match outcome {
        Outcome::Nothing => "",
        Outcome::Described(_) => "-described",
        Outcome::Failed(_) => "-undescribed",
    };
    let (generation, state) = (status.generation, status.state);
    format!("W/\"{generation}-{hash}-{state}{described}\"")
}

/// A status, and the plugin's description.
#[derive(Serialize)]
struct WithMethods {
    #[serde(flatten)]
    status: PluginStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    methods: Option<Vec<DescribedMethod>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_described: Option<String>,
}

impl WithMethods {
    fn of(status: PluginStatus, outcome: &Outcome) -> Self {
        let (methods, not_described) = match outcome {
            Outcome::Nothing => (None, None),
            Outcome::Described(it) => (Some(it.description.methods.clone()), None),
            Outcome::Failed(reason) => (None, Some(reason.to_string())),
        };
        Self {
            status,
            methods,
            not_described,
        }
    }
}

/// `GET /plugins/NAME/history`; any other name in its place is a method, which takes `POST`.
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
            let detail = "a plugin accepts the requests `rollback`, `pin` and `unpin`";
            return Err(Problem::new(Kind::NoRoute, detail));
        }
    };
    params["plugin"] = Value::String(name);
    ask(shared, visitor, method, Some(params)).await
}

/// Whether all plugins run that must.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let status = shared.door.host.status();
    let live = |name: &str| {
        let found = status.plugins.iter().find(|it| it.name == name);
        found.is_some_and(|it| it.hash.is_some())
    };
    let installed = status.plugins.iter().map(|it| it.name.as_str());
    let named = shared.config.ready.iter().map(|it| it.as_str());
    let missing: Vec<&str> = match shared.config.ready.is_empty() {
        true => installed.filter(|it| !live(it)).collect(),
        false => named.filter(|it| !live(it)).collect(),
    };
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let detail = format!("not live: {}", missing.join(", "));
    Problem::new(Kind::NotLive, detail).into_response()
}

/// The description of the interface. A client that may do nothing does not learn which plugins there are.
async fn document(
    State(shared): State<Arc<Shared>>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Response, Problem> {
    let mut plugins = Vec::new();
    if visitor.may_enter(&shared) {
        let host = &shared.door.host;
        let until = Instant::now() + descriptions::PATIENCE;
        let all = host.status().plugins;
        shared.descriptions.keep(&all);
        for status in all {
            let outcome = shared.descriptions.of(host, &status, until).await;
            plugins.push((status.name, outcome));
        }
    }
    let sees_all = plugins.is_empty() || visitor.may(&shared, Access::Role(Role::Read));
    if let Some(text) = shared.document.text_for(&plugins).filter(|_| sees_all) {
        return Ok(json_text(text));
    }
    let write = move || {
        let sees = |plugin: &str, method: &str| {
            sees_all || visitor.may(&shared, Access::Call { plugin, method })
        };
        let text = Bytes::from(openapi::document(&plugins, &sees).to_string());
        if sees_all {
            shared.document.keep(plugins, text.clone());
        }
        text
    };
    on_a_thread(write).await.map(json_text)
}

async fn explain(Address(kind): Address<String>) -> Result<String, Problem> {
    let (title, help) = Kind::explain(&kind)
        .ok_or_else(|| Problem::new(Kind::NoRoute, "there is no such kind of problem"))?;
    Ok(format!("{title}. {help}\n"))
}
