//! Every refusal of the HTTP front, as problem details (RFC 9457).
//!
//! Invariant: a kind's name, its status and their meaning never change, because programs compare them.
//! `/problems/NAME` explains it to people.
//!
//! Absent on purpose: when to refuse.

use std::fmt::Display;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hotmerge_daemon::{CallError, PluginError};
use serde::Serialize;

/// The kind of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    NoRoute,
    WrongMethod,
    NoPlugin,
    NoMethod,
    NotLive,
    BadRequest,
    BadParameters,
    Ambiguous,
    Unauthenticated,
    Forbidden,
    CrossOrigin,
    WrongHost,
    TooLarge,
    HeadTooLarge,
    TooSlow,
    TooManyCalls,
    TooManyFollowers,
    Busy,
    Stopping,
    Deadline,
    PluginRefused,
    PluginPanicked,
    PluginCrashed,
    ReplyTooLarge,
    NotAcceptable,
    UnsupportedMedia,
    NotPossible,
    Internal,
}

/// A kind's name, status, title and explanation.
type Entry = (Kind, &'static str, u16, &'static str, &'static str);

/// Every kind there is.
const KINDS: [Entry; 28] = [
    (
        Kind::NoRoute,
        "no-route",
        404,
        "There is nothing at this address",
        "`/openapi.json` lists all addresses.",
    ),
    (
        Kind::WrongMethod,
        "wrong-method",
        405,
        "This address does not accept this method",
        "The header `Allow` lists the accepted methods.",
    ),
    (
        Kind::NoPlugin,
        "no-plugin",
        404,
        "There is no such plugin",
        "`GET /plugins` lists all plugins.",
    ),
    (
        Kind::NoMethod,
        "no-method",
        404,
        "The plugin has no such method",
        "`GET /plugins/NAME` lists the methods of a plugin that describes itself.",
    ),
    (
        Kind::NotLive,
        "not-live",
        503,
        "No version of the plugin takes calls",
        "`GET /plugins/NAME` says why. Try again later.",
    ),
    (
        Kind::BadRequest,
        "bad-request",
        400,
        "The plugin could not use the request",
        "The detail is the plugin's.",
    ),
    (
        Kind::BadParameters,
        "bad-parameters",
        400,
        "The request is malformed",
        "The detail says where.",
    ),
    (
        Kind::Ambiguous,
        "ambiguous",
        400,
        "The length of the request is ambiguous",
        "The detail says why. The connection is closed.",
    ),
    (
        Kind::Unauthenticated,
        "unauthenticated",
        401,
        "A token is needed",
        "Send `Authorization: Bearer SECRET`, or ask the host's administrator for an entry in `[[door.allow]]`.",
    ),
    (
        Kind::Forbidden,
        "forbidden",
        403,
        "The client may not do this",
        "The detail says which role is needed, and who can grant it.",
    ),
    (
        Kind::CrossOrigin,
        "cross-origin",
        403,
        "Web pages of other origins are not served",
        "A browser sent the request on behalf of another site.",
    ),
    (
        Kind::WrongHost,
        "wrong-host",
        421,
        "The host is not known under this name",
        "Use its address, or add the name to `http.names`.",
    ),
    (
        Kind::TooLarge,
        "too-large",
        413,
        "The body of the request is too long",
        "`http.max_body_bytes` is the limit.",
    ),
    (
        Kind::HeadTooLarge,
        "head-too-large",
        431,
        "The head of the request is too long",
        "`http.max_header_bytes` is the limit.",
    ),
    (
        Kind::TooSlow,
        "too-slow",
        408,
        "The request did not arrive in time",
        "`http.body_ms` is the limit.",
    ),
    (
        Kind::TooManyCalls,
        "too-many-calls",
        429,
        "The client has too many calls in progress",
        "`http.max_calls_per_client` is the limit. Try again later.",
    ),
    (
        Kind::TooManyFollowers,
        "too-many-followers",
        503,
        "Too many clients follow the host's changes",
        "The status page shows the same without `/events`. Try again later.",
    ),
    (
        Kind::Busy,
        "busy",
        503,
        "The host has too many calls in progress",
        "`http.max_calls` is the limit. Try again later.",
    ),
    (
        Kind::Stopping,
        "stopping",
        503,
        "The host is stopping",
        "Try again later.",
    ),
    (
        Kind::Deadline,
        "deadline",
        504,
        "The deadline of the call has passed",
        "`Hotmerge-Deadline-Ms` sets a longer one, up to `http.deadline_ms`.",
    ),
    (
        Kind::PluginRefused,
        "plugin-refused",
        422,
        "The plugin refused the call",
        "The detail is the plugin's reason.",
    ),
    (
        Kind::PluginPanicked,
        "plugin-panicked",
        500,
        "The plugin panicked",
        "Its other calls continue. `hotmerge history NAME` has the reason.",
    ),
    (
        Kind::PluginCrashed,
        "plugin-crashed",
        502,
        "The plugin's worker ended during the call",
        "It is replaced. Whether the call had an effect is unknown.",
    ),
    (
        Kind::ReplyTooLarge,
        "reply-too-large",
        502,
        "The reply of the plugin is too long",
        "`http.max_reply_bytes` is the limit.",
    ),
    (
        Kind::NotAcceptable,
        "not-acceptable",
        406,
        "The plugin can reply in none of the accepted media types",
        "The detail names the types that it can. `Accept` names the wanted ones.",
    ),
    (
        Kind::UnsupportedMedia,
        "unsupported-media",
        415,
        "The plugin does not understand the media type of the request",
        "The detail names the types that it does. `Content-Type` names the request's type.",
    ),
    (
        Kind::NotPossible,
        "not-possible",
        409,
        "The host cannot do this now",
        "The detail says why.",
    ),
    (
        Kind::Internal,
        "internal",
        500,
        "The host failed",
        "Its log has the reason.",
    ),
];

impl Kind {
    fn entry(self) -> &'static Entry {
        let found = KINDS.iter().find(|(kind, ..)| *kind == self);
        // A test below finds a missing kind.
        found.unwrap_or(&KINDS[KINDS.len() - 1])
    }

    /// Title and explanation of the kind with that name.
    pub(super) fn explain(name: &str) -> Option<(&'static str, &'static str)> {
        let found = KINDS.iter().find(|(_, known, ..)| *known == name);
        found.map(|(_, _, _, title, help)| (*title, *help))
    }

    /// Every name with its status, for the description of the interface.
    pub(super) fn all() -> impl Iterator<Item = (&'static str, u16, &'static str)> {
        KINDS
            .iter()
            .map(|(_, name, status, title, _)| (*name, *status, *title))
    }
}

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    pub(super) detail: String,
    /// Values for the header `Allow`.
    pub(super) allow: Option<&'static str>,
}

/// As it is sent.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

/// How long a client of a busy host should wait, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            allow: None,
        }
    }

    pub(super) fn internal(error: impl Display) -> Self {
        Self::new(Kind::Internal, error.to_string())
    }

    pub(super) fn no_plugin(name: &str) -> Self {
        Self::new(Kind::NoPlugin, format!("no plugin `{name}` is known"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (kind, name, status, title, _) = self.kind.entry();
        let document = Document {
            r#type: format!("/problems/{name}"),
            title,
            status: *status,
            detail: &self.detail,
        };
        // Strings and numbers only: it cannot fail.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match kind {
            Kind::NotLive
            | Kind::TooManyCalls
            | Kind::TooManyFollowers
            | Kind::Busy
            | Kind::Stopping => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            Kind::Unauthenticated => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer realm=\"hotmerge\""),
                );
            }
            // The rest of the request is not read.
            Kind::TooLarge | Kind::TooSlow | Kind::Ambiguous => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Kind::BadParameters
            | Kind::BadRequest
            | Kind::CrossOrigin
            | Kind::Deadline
            | Kind::Forbidden
            | Kind::HeadTooLarge
            | Kind::Internal
            | Kind::NoMethod
            | Kind::NoPlugin
            | Kind::NoRoute
            | Kind::NotAcceptable
            | Kind::NotPossible
            | Kind::PluginCrashed
            | Kind::PluginPanicked
            | Kind::PluginRefused
            | Kind::ReplyTooLarge
            | Kind::UnsupportedMedia
            | Kind::WrongHost
            | Kind::WrongMethod => {}
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            CallError::NotLoaded(_) => Kind::NotLive,
            CallError::TooDeep => Kind::Internal,
            CallError::Plugin(error) => of_plugin(error),
        };
        Self::new(kind, error.to_string())
    }
}

fn of_plugin(error: &PluginError) -> Kind {
    match error {
        PluginError::NoMethod(_) => Kind::NoMethod,
        PluginError::BadRequest(_) => Kind::BadRequest,
        PluginError::Deadline => Kind::Deadline,
        PluginError::Panicked(_) => Kind::PluginPanicked,
        PluginError::Crashed(_) => Kind::PluginCrashed,
        PluginError::ReplyTooLarge => Kind::ReplyTooLarge,
        PluginError::NotAcceptable(_) => Kind::NotAcceptable,
        PluginError::UnsupportedMedia(_) => Kind::UnsupportedMedia,
        PluginError::Unavailable(_) | PluginError::NoPlugin(_) => Kind::NotLive,
        PluginError::Cancelled => Kind::Stopping,
        _ => Kind::PluginRefused,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_problem_has_one_entry_and_valid_status() {
        let kinds: BTreeSet<_> = KINDS.iter().map(|(kind, ..)| *kind as u8).collect();
        assert_eq!(kinds.len(), Kind::Internal as usize + 1);
        let names: BTreeSet<_> = KINDS.iter().map(|(_, name, ..)| name).collect();
        assert_eq!(names.len(), KINDS.len());
        for (kind, name, status, ..) in KINDS {
            let response = Problem::new(kind, "").into_response();
            assert_eq!(response.status().as_u16(), status, "{name}");
            assert!((400..600).contains(&status), "{name}");
        }
    }

    #[test]
    fn a_full_host_says_when_to_come_back() {
        for kind in [
            Kind::Busy,
            Kind::TooManyCalls,
            Kind::TooManyFollowers,
            Kind::NotLive,
            Kind::Stopping,
        ] {
            let response = Problem::new(kind, "").into_response();
            assert!(
                response.headers().contains_key(header::RETRY_AFTER),
                "{kind:?}"
            );
        }
    }
}
