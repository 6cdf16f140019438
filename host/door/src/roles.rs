//! Identities, and what each may do, for every transport.
//!
//! An [`Identity`] has a name for people, and the principals that entries of `[[door.allow]]` may name.
//! The transport determines it: the control socket asks the kernel.
//!
//! Invariant: each request is checked against the entries in force at that moment, so that a new
//! configuration revokes access at once, on open connections too.
//!
//! Absent on purpose: which request needs which role (`answer` has that table), sockets.

use std::fmt;

use hotmerge_daemon::config::{Allow, Principal, Role};
use nix::unistd::{Uid, User};

/// The proven identity of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    name: String,
    /// Whether it is root or the host's own user, who may do everything.
    is_owner: bool,
    principals: Vec<Principal>,
}

/// The access that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    /// Everything that a role may do.
    Role(Role),
    /// A call of one method of one plugin.
    Call { plugin: &'a str, method: &'a str },
}

/// A refusal: who was refused what, and who could permit it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{who} may not {what}, which needs the role `{role}`{of}; root or {owner} can grant it with an \
     entry `[[door.allow]]` in the host's configuration"
)]
pub(crate) struct Denied {
    who: String,
    what: String,
    role: Role,
    of: String,
    owner: String,
}

impl Identity {
    /// A user of this system with its groups.
    pub(crate) fn of_user(uid: u32, groups: impl IntoIterator<Item = u32>) -> Self {
        let own = Principal::User(uid);
        let groups = groups.into_iter().map(Principal::Group);
        Self {
            name: user(uid),
            is_owner: uid == 0 || uid == rustix::process::geteuid().as_raw(),
            principals: std::iter::once(own).chain(groups).collect(),
        }
    }

    /// The holder of a bearer token.
    #[cfg(feature = "http")]
    pub(crate) fn of_token(name: &str) -> Self {
        Self {
            name: format!("the holder of token `{name}`"),
            is_owner: false,
            principals: vec![Principal::Token(name.to_owned()), Principal::Anybody],
        }
    }

    /// A client without a token, at this address.
    #[cfg(feature = "http")]
    pub(crate) fn of_address(address: std::net::IpAddr) -> Self {
        Self {
            name: format!("a client without a token at `{address}`"),
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
            who: self.name.clone(),
            what: what.into(),
            role,
            of,
            owner: match rustix::process::geteuid().as_raw() {
                0 => "whoever configures the host".to_owned(),
                uid => user(uid),
            },
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A user's name, or its number.
fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("user `{}` ({uid})", user.name),
        _ => format!("user {uid}"),
    }
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
        // Membership in the group root makes nobody root.
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
