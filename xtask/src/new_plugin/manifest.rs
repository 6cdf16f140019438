//! The two manifests that a new plugin touches: its own, and the workspace's list of members.

use std::path::Path;

use anyhow::{Context as _, Result};
use hotmerge_meta::PluginName;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value, table, value};

/// The source of the SDK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sdk {
    /// The workspace has it among its dependencies.
    Workspace,
    /// A directory, a git repository or a version, as cargo names these keys.
    From { key: &'static str, place: String },
}

/// What a new plugin's manifest can inherit from the workspace's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inherited<'a> {
    workspace: Option<&'a Item>,
}

impl<'a> Inherited<'a> {
    /// What the manifest of a workspace's root offers.
    pub(super) fn from(root: &'a DocumentMut) -> Self {
        Self {
            workspace: root.get("workspace"),
        }
    }

    /// Whether there is a workspace at all; a package may be a root of its own.
    pub(super) fn is_workspace(self) -> bool {
        self.workspace.is_some()
    }

    /// Whether the workspace names the SDK for its members.
    pub(super) fn has_sdk(self) -> bool {
        self.offers(&["dependencies", "hotmerge-sdk"])
    }

    fn offers(self, path: &[&str]) -> bool {
        let mut item = self.workspace;
        for key in path {
            item = item.and_then(|item| item.get(key));
        }
        item.is_some()
    }
}

/// The manifest of a plugin crate.
pub(super) fn plugin(name: &PluginName, sdk: &Sdk, inherited: Inherited<'_>) -> String {
    let mut package = Table::new();
    package["name"] = value(name.as_str());
    package["description"] = value(format!("The hotmerge plugin {name}"));
    for (key, default) in [
        ("version", Some("0.1.0")),
        ("edition", Some("2024")),
        ("rust-version", None),
        ("license", None),
    ] {
        if inherited.offers(&["package", key]) {
            package[key] = dotted("workspace");
        } else if let Some(default) = default {
            package[key] = value(default);
        }
    }
    package["publish"] = value(false);
    let mut mark = Table::new();
    mark["name"] = value(name.as_str());
    let mut metadata = Table::new();
    metadata.set_implicit(true);
    metadata.insert("hotmerge", Item::Table(mark));
    package.insert("metadata", Item::Table(metadata));

    let mut library = Table::new();
    library["crate-type"] = value(Array::from_iter(["cdylib"]));
    let mut dependencies = Table::new();
    dependencies["hotmerge-sdk"] = match sdk {
        Sdk::Workspace => dotted("workspace"),
        Sdk::From {
            key: "version",
            place,
        } => value(place),
        Sdk::From { key, place } => value(Value::InlineTable(InlineTable::from_iter([(
            *key,
            place.as_str(),
        )]))),
    };

    let mut manifest = DocumentMut::new();
    manifest["package"] = Item::Table(package);
    manifest["lib"] = Item::Table(library);
    manifest["dependencies"] = Item::Table(dependencies);
    if inherited.offers(&["lints"]) {
        manifest["lints"] = table();
        manifest["lints"]["workspace"] = value(true);
    }
    manifest.to_string()
}

/// `KEY.workspace = true`.
fn dotted(key: &str) -> Item {
    let mut table = Table::new();
    table.set_dotted(true);
    table[key] = value(true);
    Item::Table(table)
}

/// Adds `member` to the members of a workspace; `false` if a glob already includes it.
pub(super) fn add_member(root: &mut DocumentMut, member: &str) -> Result<bool> {
    let members = root["workspace"]
        .as_table_like_mut()
        .context("`workspace` is not a table")?
        .entry("members")
        .or_insert_with(|| value(Array::new()))
        .as_array_mut()
        .context("`workspace.members` is not a list")?;
    let parent = Path::new(member).parent().map(|parent| parent.join("*"));
    let names_it = |known: &Value| {
        let known = known.as_str().map(Path::new);
        known == Some(Path::new(member)) || known == parent.as_deref()
    };
    if members.iter().any(names_it) {
        return Ok(false);
    }
    let mut new = Value::from(member);
    new.decor_mut().set_prefix(indentation(members));
    members.push_formatted(new);
    Ok(true)
}

/// What stands before the last member, without comments: a further one stands as it does.
fn indentation(members: &Array) -> String {
    let last = members
        .iter()
        .last()
        .and_then(|last| last.decor().prefix()?.as_str());
    match last.and_then(|prefix| prefix.rsplit_once('\n')) {
        Some((_, blanks)) => format!("\n{blanks}"),
        None if members.is_empty() => String::new(),
        None => " ".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_member_follows_the_lists_formatting() {
        let mut root: DocumentMut = "[workspace]\nmembers = [\n    \"a\", # first\n    \"b\",\n]\n"
            .parse()
            .unwrap();
        assert!(add_member(&mut root, "plugins/c").unwrap());
        assert_eq!(
            root.to_string(),
            "[workspace]\nmembers = [\n    \"a\", # first\n    \"b\",\n    \"plugins/c\",\n]\n",
        );
        assert!(!add_member(&mut root, "plugins/c").unwrap());
    }

    #[test]
    fn a_glob_may_already_include_the_member() {
        let text = "[workspace]\nmembers = [\"plugins/*\"]\n";
        let mut root: DocumentMut = text.parse().unwrap();
        assert!(!add_member(&mut root, "plugins/c").unwrap());
        assert_eq!(root.to_string(), text);
    }

    #[test]
    fn inherits_what_the_workspace_offers() {
        let root: DocumentMut = "[workspace.package]\nversion = \"2.0.0\"\n[workspace.lints.rust]\n[workspace.dependencies]\nhotmerge-sdk = \"1\"\n"
            .parse()
            .unwrap();
        let inherited = Inherited::from(&root);
        assert!(inherited.has_sdk());
        assert_eq!(
            plugin(
                &PluginName::new("my-plugin").unwrap(),
                &Sdk::Workspace,
                inherited
            ),
            "[package]
name = \"my-plugin\"
description = \"The hotmerge plugin my-plugin\"
version.workspace = true
edition = \"2024\"
publish = false

[package.metadata.hotmerge]
name = \"my-plugin\"

[lib]
crate-type = [\"cdylib\"]

[dependencies]
hotmerge-sdk.workspace = true

[lints]
workspace = true
",
        );
    }

    #[test]
    fn stands_alone_without_a_workspace_offer() {
        let sdk = Sdk::From {
            key: "path",
            place: "/src/sdk".into(),
        };
        let manifest = plugin(&PluginName::new("x").unwrap(), &sdk, Inherited::default());
        assert!(manifest.contains("version = \"0.1.0\"\n"), "{manifest}");
        assert!(
            manifest.contains("hotmerge-sdk = { path = \"/src/sdk\" }\n"),
            "{manifest}"
        );
        assert!(!manifest.contains("lints"), "{manifest}");
    }
}
