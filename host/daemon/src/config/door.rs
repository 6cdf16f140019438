//! Who may ask a host for what: the section `door` of its configuration.
//!
//! Names of users and groups become numbers when the configuration is read, so that an unknown
//! name is an error of the configuration and a check costs no look-up.
//!
//! Absent on purpose: checks of requests, and how an identity comes to be known.

use std::fmt;

use hotmerge_meta::PluginName;
use nix::unistd::{Group, User};
use serde::{Deserialize, Deserializer, de};

/// Access to the control interface. Root and the host's own user may always make every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoorConfig {
    /// Who else may make which requests. Entries add up.
    pub allow: Vec<Allow>,
}

/// The requests that a client may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Status and history. It changes nothing.
    Read,
    /// Calls of plugins.
    Call,
    /// Everything, including reload, pin, rollback and stop.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Call => "call",
            Self::Admin => "admin",
        })
    }
}

/// The clients that an entry names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A user, by number.
    User(u32),
    /// The members of a group, by number.
    Group(u32),
    /// The holder of a bearer token of the HTTP front.
    Token(String),
    /// Every client of the HTTP front.
    Anybody,
}

/// One entry of `[[door.allow]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Entry")]
#[non_exhaustive]
pub struct Allow {
    /// The clients.
    pub principal: Principal,
    /// Their role.
    pub role: Role,
    /// For [`Role::Call`]: only these plugins, if given.
    pub plugins: Option<Vec<PluginName>>,
    /// For [`Role::Call`]: only these methods of them, if given.
    pub methods: Option<Vec<String>>,
}

impl Allow {
    /// Whether this entry alone permits requests that need that role.
    pub fn grants(&self, role: Role) -> bool {
        self.role == role || self.role == Role::Admin
    }

    /// Whether this entry alone permits a call.
    pub fn grants_call(&self, plugin: &str, method: &str) -> bool {
        let is_named = |names: Option<&[PluginName]>| {
            names.is_none_or(|names| names.iter().any(|name| name.as_str() == plugin))
        };
        let has = |methods: Option<&[String]>| {
            methods.is_none_or(|methods| methods.iter().any(|name| name == method))
        };
        self.grants(Role::Call) && is_named(self.plugins.as_deref()) && has(self.methods.as_deref())
    }
}

/// An entry as written in a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default, deserialize_with = "user")]
    user: Option<u32>,
    #[serde(default, deserialize_with = "group")]
    group: Option<u32>,
    token: Option<String>,
    #[serde(default)]
    anybody: bool,
    role: Role,
    plugins: Option<Vec<PluginName>>,
    methods: Option<Vec<String>>,
}

const WHO: &str =
    "an entry of `door.allow` names one `user`, one `group`, one `token`, or `anybody = true`";

impl TryFrom<Entry> for Allow {
    type Error = &'static str;

    fn try_from(entry: Entry) -> Result<Self, Self::Error> {
        let principal = match (entry.user, entry.group, entry.token, entry.anybody) {
            (Some(user), None, None, false) => Principal::User(user),
            (None, Some(group), None, false) => Principal::Group(group),
            (None, None, Some(token), false) => Principal::Token(token),
            (None, None, None, true) => Principal::Anybody,
            _ => return Err(WHO),
        };
        if principal == Principal::Anybody && entry.role == Role::Admin {
            return Err("the role `admin` takes a `user`, a `group` or a `token`");
        }
        if entry.role != Role::Call && (entry.plugins.is_some() || entry.methods.is_some()) {
            return Err("`plugins` and `methods` narrow the role `call` only");
        }
        let is_empty = |names: Option<usize>| names == Some(0);
        if is_empty(entry.plugins.as_ref().map(Vec::len))
            || is_empty(entry.methods.as_ref().map(Vec::len))
        {
            return Err("an empty list permits nothing; leave it out to permit all");
        }
        Ok(Self {
            principal,
            role: entry.role,
            plugins: entry.plugins,
            methods: entry.methods,
        })
    }
}

fn user<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let find = |name: &str| Ok(User::from_name(name)?.map(|user| user.uid.as_raw()));
    deserializer
        .deserialize_any(Id { what: "user", find })
        .map(Some)
}

fn group<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let find = |name: &str| Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()));
    deserializer
        .deserialize_any(Id {
            what: "group",
            find,
        })
        .map(Some)
}

/// A number, or a name that the system knows.
struct Id<F> {
    what: &'static str,
    find: F,
}

impl<F: FnOnce(&str) -> nix::Result<Option<u32>>> de::Visitor<'_> for Id<F> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name or number of a {}", self.what)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u32, E> {
        let what = self.what;
        // The highest number means "none".
        let number = u32::try_from(number).ok().filter(|it| *it != u32::MAX);
        number.ok_or_else(|| E::custom(format_args!("this is not the number of a {what}")))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u32, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<u32, E> {
        let what = self.what;
        match (self.find)(name) {
            Ok(Some(number)) => Ok(number),
            Ok(None) => Err(E::custom(format_args!(
                "this system has no {what} `{name}`"
            ))),
            Err(error) => Err(E::custom(format_args!(
                "failed to look up the {what} `{name}`: {error}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DoorConfig, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_numbers_mean_the_same() {
        let entry = |who: &str| {
            let config = read(&format!("[[allow]]\n{who}\nrole = \"read\"")).unwrap();
            config.allow[0].principal.clone()
        };
        assert_eq!(entry("user = \"root\""), Principal::User(0));
        assert_eq!(entry("user = 1234"), Principal::User(1234));
        assert_eq!(entry("group = \"root\""), Principal::Group(0));
        assert_eq!(entry("group = 99"), Principal::Group(99));
    }

    #[test]
    fn an_entry_with_unclear_permission_is_refused() {
        for (entry, reason) in [
            ("role = \"read\"", "names one `user`, one `group`"),
            (
                "user = 1\ngroup = 1\nrole = \"read\"",
                "names one `user`, one `group`",
            ),
            (
                "token = \"a\"\nanybody = true\nrole = \"read\"",
                "names one `user`, one `group`",
            ),
            (
                "anybody = true\nrole = \"admin\"",
                "takes a `user`, a `group` or a `token`",
            ),
            ("user = 1", "missing field `role`"),
            ("user = 1\nrole = \"write\"", "unknown variant `write`"),
            (
                "user = 1\nrole = \"read\"\nplugins = [\"a\"]",
                "narrow the role `call` only",
            ),
            (
                "user = 1\nrole = \"call\"\nplugins = []",
                "an empty list permits nothing",
            ),
            (
                "user = \"no such user\"\nrole = \"read\"",
                "has no user `no such user`",
            ),
            (
                "group = \"no such group\"\nrole = \"read\"",
                "has no group `no such group`",
            ),
            ("user = -1\nrole = \"read\"", "not the number of a user"),
            (
                "user = 4294967295\nrole = \"read\"",
                "not the number of a user",
            ),
        ] {
            let refused = read(&format!("[[allow]]\n{entry}")).unwrap_err();
            assert!(refused.contains(reason), "{entry}: {refused}");
        }
    }

    #[test]
    fn a_call_is_permitted_by_plugin_and_method() {
        let text =
            "[[allow]]\nuser = 1\nrole = \"call\"\nplugins = [\"shop\"]\nmethods = [\"get\"]";
        let entry = &read(text).unwrap().allow[0];
        assert!(entry.grants_call("shop", "get"));
        assert!(!entry.grants_call("shop", "set"));
        assert!(!entry.grants_call("bank", "get"));
        assert!(!entry.grants(Role::Read));
        assert!(!entry.grants(Role::Admin));
    }
}
