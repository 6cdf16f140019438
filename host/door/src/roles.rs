//! Identities, and what each may do, for every transport.
//!
//! An [`Identity`] has a name for people, and the principals that entries of `[[door.allow]]` may name.
//! The transport determines it: the control socket asks the kernel.
//!
//! Invariant: each request is checked against the entries in force at that moment, so that a new
//! configuration revokes access at once, on open connections too.
//!
//! Absent on purpose: which request needs which role (`answer` has that table), sockets.

use std::{fmt, sync::OnceLock};

use hotmerge_daemon::config::{Allow, Principal, Role};
use nix::unistd::{Uid, User};

/// The proven identity of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    client: Client,
    /// Whether it is root or the host's own user, who may do everything.
    is_owner: bool,
    principals: Vec<Principal>,
}

/// The users that an identity stands for. A user's name is looked up only to be shown, because that may take long.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Client {
    User(u32),
    #[cfg(feature = "http")]
    Token(String),
    #[cfg(feature = "http")]
    Address(std::net::IpAddr),
}

/// The access that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    /// Everything that a role may do.
    Role(Role),
    /// A call of one method of one plugin.
    Call { plugin: &'a str, method: &'a str },
}

/// A refusal: who was refused what, and who could permit it by which entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{who} may not {what}, which needs the role `{role}`{of}; root or {} can grant it by these lines in the \
     host's configuration: `[[door.allow]]`, `{entry}`, `role = \"{role}\"`",
    grantor()
)]
pub(crate) struct Denied {
    who: String,
    what: String,
    role: Role,
    of: String,
    entry: String,
}

/// The refusal of a user without any role, before it has asked for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "user {uid} has no role on this host; root or {} can grant one by these lines in the host's \
     configuration: `[[door.allow]]`, `user = {uid}`, and `role = \"read\"` for status, history and log, \
     `role = \"call\"` for calls, or `role = \"admin\"` for everything",
    grantor()
)]
pub(crate) struct Stranger {
    /// By number: looking up a name may take long, and other clients wait for this thread.
    pub(crate) uid: u32,
}

/// Who besides root decides about roles.
fn grantor() -> &'static str {
    static GRANTOR: OnceLock<String> = OnceLock::new();
    GRANTOR.get_or_init(|| match rustix::process::geteuid().as_raw() {
        0 => "the host's administrator".to_owned(),
        uid => user(uid),
    })
}

impl Identity {
    /// A user of this system with its groups.
    pub(crate) fn of_user(uid: u32, groups: impl IntoIterator<Item = u32>) -> Self {
        let own = Principal::User(uid);
        let groups = groups.into_iter().map(Principal::Group);
        Self {
            client: Client::User(uid),
            is_owner: uid == 0 || uid == rustix::process::geteuid().as_raw(),
            principals: std::iter::once(own).chain(groups).collect(),
        }
    }

    /// The holder of a bearer token.
    #[cfg(feature = "http")]
    pub(crate) fn of_token(name: &str) -> Self {
        Self {
            client: Client::Token(name.to_owned()),
            is_owner: false,
            principals: vec![Principal::Token(name.to_owned()), Principal::Anybody],
        }
    }

    /// A client without a token, at this address.
    #[cfg(feature = "http")]
    pub(crate) fn of_address(address: std::net::IpAddr) -> Self {
        Self {
            client: Client::Address(address),
            is_owner: false,
            principals: vec![Principal::Anybody],
        }
    }

    /// The same identity with what the entries for `anybody` permit.
    #[cfg(feature = "http")]
    pub(crate) fn or_anybody(mut self) -> Self {
        self.principals.push(Principal::Anybody);
        self
    }

    /// Whether it has this access.
    pub(crate) fn may(&self, allow: &[Allow], access: Access<'_>) -> bool {
        self.is_owner
            || self.entries(allow).any(|entry| match access {
                Access::Role(role) => entry.grants(role),
                Access::Call { plugin, method } => entry.grants_call(plugin, method),
            })
    }

    /// Whether it has any access at all.
    pub(crate) fn may_enter(&self, allow: &[Allow]) -> bool {
        self.is_owner || self.entries(allow).next().is_some()
    }

    fn entries<'a>(&self, allow: &'a [Allow]) -> impl Iterator<Item = &'a Allow> {
        let is_it = |entry: &&Allow| self.principals.contains(&entry.principal);
        allow.iter().filter(is_it)
    }

    /// The refusal for lack of this access.
    pub(crate) fn denied(&self, access: Access<'_>, what: impl Into<String>) -> Denied {
        let (role, of) = match access {
            Access::Role(role) => (role, String::new()),
            Access::Call { plugin, method } => (
                Role::Call,
                format!(" for method `{method}` of plugin `{plugin}`"),
            ),
        };
        Denied {
            who: self.to_string(),
            what: what.into(),
            role,
            of,
            entry: self.client.entry(role),
        }
    }
}

impl Client {
    /// The line of an entry that names it.
    #[cfg_attr(
        not(feature = "http"),
        expect(unused_variables, reason = "users may have every role")
    )]
    fn entry(&self, role: Role) -> String {
        match self {
            Self::User(uid) => match name(*uid) {
                Some(name) => format!("user = {name:?}"),
                None => format!("user = {uid}"),
            },
            #[cfg(feature = "http")]
            Self::Token(name) => format!("token = {name:?}"),
            // Nobody may make everybody an administrator.
            #[cfg(feature = "http")]
            Self::Address(_) if role == Role::Admin => "token = \"NAME\"".to_owned(),
            #[cfg(feature = "http")]
            Self::Address(_) => "anybody = true".to_owned(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.client {
            Client::User(uid) => f.write_str(&user(*uid)),
            #[cfg(feature = "http")]
            Client::Token(name) => write!(f, "the holder of token `{name}`"),
            #[cfg(feature = "http")]
            Client::Address(address) => write!(f, "a client without a token at `{address}`"),
        }
    }
}

/// A user's name and number, or its number alone.
fn user(uid: u32) -> String {
    match name(uid) {
        Some(name) => format!("user `{name}` ({uid})"),
        None => format!("user {uid}"),
    }
}

fn name(uid: u32) -> Option<String> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
    Some(user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEBODY: u32 = 4711;

    fn allow(text: &str) -> Vec<Allow> {
        let config: hotmerge_daemon::config::DoorConfig = toml::from_str(text).unwrap();
        config.allow
    }

    fn roles(identity: &Identity, allow: &[Allow]) -> [bool; 3] {
        [Role::Read, Role::Call, Role::Admin].map(|role| identity.may(allow, Access::Role(role)))
    }

    #[test]
    fn by_default_only_root_and_the_owner_may() {
        assert_eq!(roles(&Identity::of_user(0, []), &[]), [true; 3]);
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(roles(&Identity::of_user(own, []), &[]), [true; 3]);
        // Members of the group root are not root.
        let somebody = Identity::of_user(SOMEBODY, [0]);
        assert_eq!(roles(&somebody, &[]), [false; 3]);
        assert!(!somebody.may_enter(&[]));
    }

    #[test]
    fn roles_of_user_and_groups_add_up() {
        let allow = allow(
            "[[allow]]\nuser = 4711\nrole = \"call\"\nplugins = [\"shop\"]\n\
             [[allow]]\ngroup = 12\nrole = \"read\"\n\
             [[allow]]\ngroup = 13\nrole = \"admin\"\n",
        );
        let roles =
            |groups: &[u32]| roles(&Identity::of_user(SOMEBODY, groups.iter().copied()), &allow);
        assert_eq!(roles(&[]), [false, true, false]);
        assert_eq!(roles(&[12]), [true, true, false]);
        assert_eq!(roles(&[13]), [true; 3]);
        let member = Identity::of_user(1, [12]);
        assert!(member.may_enter(&allow));
        assert!(
            !Identity::of_user(12, [4711]).may_enter(&allow),
            "numbers of another kind"
        );
    }

    /// The entry that a refusal proposes, as a configuration has it.
    fn proposed(refusal: &str) -> Vec<Allow> {
        let (_, lines) = refusal.split_once("configuration: ").unwrap();
        let lines = lines.split('`').skip(1).step_by(2).take(3);
        let text: Vec<_> = lines.map(|line| line.replace("door.", "")).collect();
        allow(&text.join("\n"))
    }

    #[test]
    fn the_entry_of_a_refusal_grants_the_access() {
        let identities = [
            Identity::of_user(SOMEBODY, []),
            #[cfg(feature = "http")]
            Identity::of_token("a \"quoted\" one"),
            #[cfg(feature = "http")]
            Identity::of_address(std::net::Ipv4Addr::LOCALHOST.into()),
        ];
        for identity in identities {
            for role in [Role::Read, Role::Call, Role::Admin] {
                let access = Access::Role(role);
                let said = identity.denied(access, "do it").to_string();
                let allow = proposed(&said);
                let is_named = said.contains("NAME");
                assert!(is_named || identity.may(&allow, access), "{said}");
            }
        }
        let said = Stranger { uid: SOMEBODY }.to_string();
        let somebody = Identity::of_user(SOMEBODY, []);
        assert_eq!(roles(&somebody, &proposed(&said)), [true, false, false]);
    }

    #[test]
    fn a_refusal_names_who_what_role_and_grantor() {
        let identity = Identity::of_user(SOMEBODY, []);
        let call = Access::Call {
            plugin: "shop",
            method: "get",
        };
        let said = identity.denied(call, "call it").to_string();
        for words in [
            "user 4711 may not call it",
            "role `call` for method `get` of plugin `shop`",
        ] {
            assert!(said.contains(words), "no `{words}` in: {said}");
        }
        let said = identity
            .denied(Access::Role(Role::Admin), "ask for `stop`")
            .to_string();
        for words in [
            "may not ask for `stop`",
            "role `admin`;",
            "root or ",
            "`[[door.allow]]`",
        ] {
            assert!(said.contains(words), "no `{words}` in: {said}");
        }
    }
}
