//! The identity of a client, as proven by its request and connection.
//!
//! Absent on purpose: what a client may do, which `roles` decides.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use hotmerge_meta::control::method;

use super::{
    problem::{Kind, Problem},
    share::Client,
    shared::{Peer, Shared},
};
use crate::roles::{Access, Denied, Identity};

/// A client.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) who: Arc<Identity>,
    pub(super) client: Client,
    pub(super) is_anonymous: bool,
}

impl Visitor {
    /// Identifies the client; a token takes precedence over the connection's peer.
    pub(super) fn of(shared: &Shared, peer: &Peer, headers: &HeaderMap) -> Result<Self, Problem> {
        if let Some(shown) = headers.get(header::AUTHORIZATION) {
            let (scheme, secret) = split_once(shown.as_bytes(), b' ');
            let holder = scheme
                .eq_ignore_ascii_case(b"bearer")
                .then(|| shared.tokens.holder(secret.trim_ascii()))
                .flatten();
            let holder = holder.ok_or_else(|| {
                shared.door.tally.denied();
                Problem::new(Kind::Unauthenticated, "this token is unknown")
            })?;
            return Ok(Self {
                who: Arc::new(Identity::of_token(holder)),
                client: Client::Token(holder.to_owned()),
                is_anonymous: false,
            });
        }
        Ok(match peer {
            Peer::Address(address) => Self {
                who: Arc::new(Identity::of_address(*address)),
                client: Client::Address(*address),
                is_anonymous: true,
            },
            Peer::User { uid, groups } => Self {
                who: Arc::new(Identity::of_user(*uid, groups.iter().copied()).or_anybody()),
                client: Client::User(*uid),
                is_anonymous: false,
            },
        })
    }

    pub(super) fn may_call(
        &self,
        shared: &Shared,
        plugin: &str,
        method: &str,
    ) -> Result<(), Problem> {
        let access = Access::Call { plugin, method };
        self.authorize(shared, access, method::CALL)
    }

    /// Whether it may; neither log nor counters record this.
    pub(super) fn may(&self, shared: &Shared, access: Access<'_>) -> bool {
        self.who.may(&shared.door.host.config().door.allow, access)
    }

    /// Whether it may do anything that is not for everybody.
    pub(super) fn may_enter(&self, shared: &Shared) -> bool {
        self.who.may_enter(&shared.door.host.config().door.allow)
    }

    pub(super) fn authorize(
        &self,
        shared: &Shared,
        access: Access<'_>,
        method: &str,
    ) -> Result<(), Problem> {
        let authorized = shared
            .door
            .authorize(&self.who, access, method, || format!("ask for `{method}`"));
        authorized.map_err(|denied| self.refused(&denied))
    }

    fn refused(&self, denied: &Denied) -> Problem {
        let kind = match self.is_anonymous {
            true => Kind::Unauthenticated,
            false => Kind::Forbidden,
        };
        Problem::new(kind, denied.to_string())
    }
}

fn split_once(text: &[u8], at: u8) -> (&[u8], &[u8]) {
    let place = text.iter().position(|byte| *byte == at);
    place.map_or((text, &[]), |place| (&text[..place], &text[place + 1..]))
}
