//! The few cargo settings that the driver needs, from the files that cargo reads.
//!
//! Cargo has no stable command that prints its settings. So this reads as little as possible:
//! which files apply, and single strings in them.
//!
//! Absent on purpose: validation. Cargo reports invalid files and values itself.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use toml_edit::{DocumentMut, Item, Value};

/// The configuration that applies to a workspace.
#[derive(Debug)]
pub(crate) struct Config {
    /// In order of precedence, the first highest.
    files: Vec<(PathBuf, DocumentMut)>,
}

impl Config {
    /// Reads the configuration of the workspace at `root`. Invalid files are skipped: cargo
    /// reports them.
    pub(crate) fn of(root: &Path) -> Self {
        let mut config = Self { files: Vec::new() };
        let around = root.ancestors().map(|directory| directory.join(".cargo"));
        for directory in around.chain(home()) {
            let names = ["config", "config.toml"].iter();
            let mut files = names.map(|name| directory.join(name));
            if let Some(file) = files.find(|file| file.is_file()) {
                config.add(file);
            }
        }
        config
    }

    /// A file takes precedence over those that it includes, and a later include over an earlier one.
    fn add(&mut self, file: PathBuf) {
        if self.files.iter().any(|(known, _)| *known == file) {
            return;
        }
        let text = fs::read_to_string(&file).unwrap_or_default();
        let document = text.parse::<DocumentMut>().unwrap_or_default();
        let beside = file.parent().map(Path::to_owned).unwrap_or_default();
        let included: Vec<_> = document.get("include").map(included).unwrap_or_default();
        self.files.push((file, document));
        for path in included.into_iter().rev() {
            self.add(beside.join(path));
        }
    }

    /// The files, to detect changes.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(file, _)| file.as_path())
    }

    /// Whether a file sets `build.key`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.build(key).is_some()
    }

    /// A program, from its own variable, cargo's variable for `build.key`, or a file.
    pub(crate) fn program(&self, key: &str) -> Option<OsString> {
        let name = key.to_uppercase().replace('-', "_");
        let variable = env::var_os(&name).or_else(|| env::var_os(format!("CARGO_BUILD_{name}")));
        if let Some(value) = variable {
            return Some(absolute(value));
        }
        let (file, value) = self.build(key)?;
        if !value.contains('/') {
            return Some(value.into());
        }
        // Relative to the directory that contains `.cargo`.
        let base = file.ancestors().nth(2)?;
        Some(base.join(value).into())
    }

    fn build(&self, key: &str) -> Option<(&Path, &str)> {
        let mut files = self.files.iter();
        files.find_map(|(file, document)| {
            let value = document.get("build")?.get(key)?.as_str()?;
            Some((file.as_path(), value))
        })
    }
}

/// A path made absolute from the user's working directory; a name to search in `PATH` stays.
pub(super) fn absolute(value: OsString) -> OsString {
    let path = Path::new(&value);
    if path.components().count() < 2 && !value.as_encoded_bytes().contains(&b'/') {
        return value;
    }
    match std::path::absolute(path) {
        Ok(absolute) => absolute.into(),
        Err(_) => value,
    }
}

fn home() -> Option<PathBuf> {
    match env::var_os("CARGO_HOME").filter(|home| !home.is_empty()) {
        Some(home) => std::path::absolute(home).ok(),
        None => Some(env::home_dir()?.join(".cargo")),
    }
}

/// `include` is a path, or a list of paths and of tables with one.
fn included(include: &Item) -> Vec<String> {
    let path = |value: &Value| {
        let table = value.as_inline_table().and_then(|table| table.get("path"));
        table.unwrap_or(value).as_str().map(str::to_owned)
    };
    match include {
        Item::Value(Value::Array(all)) => all.iter().filter_map(path).collect(),
        Item::Value(one) => path(one).into_iter().collect(),
        Item::ArrayOfTables(all) => all
            .iter()
            .filter_map(|table| table.get("path")?.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_in_cargos_order() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("inner");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "inner/.cargo/config.toml",
            "include = [\"one.toml\", { path = \"two.toml\", optional = true }, \"none.toml\"]\n\
             [build]\njobs = \"default\"\n",
        );
        write(
            "inner/.cargo/one.toml",
            "build.tool = \"1\"\nbuild.only = \"x/one\"",
        );
        write("inner/.cargo/two.toml", "build.tool = \"2\"");
        write(
            ".cargo/config.toml",
            "build.tool = \"outer\"\nbuild.far = \"far\"",
        );
        write(".cargo/config", "not = [toml");
        let config = Config::of(&inner);
        assert_eq!(config.program("tool").unwrap(), "2");
        assert_eq!(config.program("only").unwrap(), inner.join("x/one"));
        assert!(
            !config.has("far"),
            "cargo prefers the file without an ending"
        );
    }
}
