//! The symbol groups: data, and the group of each name.

use serde::Deserialize;

/// When a group's symbols may be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// By every plugin.
    Always,
    /// If files were granted.
    Fs,
    /// If the network was granted.
    Net,
    /// In the host's own process only: no worker's system call filter permits what is behind them.
    Host,
    /// In a worker, where the filters decide.
    Worker,
    /// By no plugin.
    Never,
}

/// A group of similar symbols.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name, for people.
    pub name: String,
    /// When its symbols may be imported.
    pub when: When,
    /// Why.
    pub reason: String,
    /// What of a language's library leads there most often, for authors who never wrote such a name.
    pub likely: Option<String>,
    symbols: Vec<String>,
}

impl Group {
    fn patterns(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter().map(String::as_str)
    }
}

/// All groups, in order of precedence.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    group: Vec<Group>,
}

/// The data cannot be parsed as groups.
#[derive(Debug, thiserror::Error)]
#[error("the symbol policy cannot be read: {0}")]
pub struct GroupsError(String);

impl Groups {
    /// The text of the built-in groups.
    pub const BUILTIN: &str = include_str!("../data/symbols.toml");

    /// Reads groups, in the format of the built-in ones.
    ///
    /// # Errors
    /// The position and the reason of the first error.
    pub fn parse(text: &str) -> Result<Self, GroupsError> {
        let groups: Self = toml::from_str(text).map_err(|error| GroupsError(error.to_string()))?;
        match groups
            .group
            .iter()
            .find(|group| group.reason.trim().is_empty())
        {
            Some(group) => Err(GroupsError(format!(
                "the group `{}` has no reason",
                group.name
            ))),
            None => Ok(groups),
        }
    }

    /// All of them, with their patterns, in order of precedence.
    pub fn patterns(&self) -> impl Iterator<Item = (&Group, &str)> {
        let of = |group| Group::patterns(group).map(move |pattern| (group, pattern));
        self.group.iter().flat_map(of)
    }

    /// The group of a symbol.
    pub fn of(&self, symbol: &str) -> Option<&Group> {
        let has = |group: &&Group| group.symbols.iter().any(|pattern| matches(pattern, symbol));
        self.group.iter().find(has)
    }
}

fn matches(pattern: &str, symbol: &str) -> bool {
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(start), _) => symbol.starts_with(start),
        (None, Some(end)) => symbol.ends_with(end),
        (None, None) => pattern == symbol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_its_first_group() {
        let groups = Groups::parse(Groups::BUILTIN).unwrap();
        let when = |symbol: &str| groups.of(symbol).map(|group| group.when);
        assert_eq!(when("execve"), Some(When::Never));
        assert_eq!(when("exp"), Some(When::Always));
        assert_eq!(when("process_vm_readv"), Some(When::Never));
        assert_eq!(when("opendir"), Some(When::Fs));
        assert_eq!(when("getaddrinfo"), Some(When::Net));
        assert_eq!(when("symlinkat"), Some(When::Host));
        assert_eq!(when("setuid"), Some(When::Worker));
        assert_eq!(when("frobnicate"), None);
    }
}
