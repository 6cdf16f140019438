//! A workspace of plugins in a temporary directory, and the driver run on it.
//!
//! The dependencies are those that this repository uses, in the versions of its lock file, so
//! that no network is needed.

#![allow(dead_code, reason = "each test file uses a part")]

#[path = "../../../tests/harness/help.rs"]
mod help;
#[path = "../../../tests/harness/streams.rs"]
mod streams;

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;
use walkdir::WalkDir;

#[allow(unused_imports, reason = "each test file uses a part")]
pub use self::{
    help::commands_of,
    streams::{closed_pipe, full_disk},
};

/// The root of this repository.
pub fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the driver is a folder of the repository")
        .to_owned()
}

/// Plugins in `plugins/`, beside a copy of the SDK in `hotmerge/`.
pub struct Scratch {
    dir: TempDir,
    /// Where in the temporary directory the copy is.
    place: PathBuf,
}

impl Scratch {
    /// A workspace without plugins.
    pub fn new() -> Self {
        Self::at("here")
    }

    /// A workspace at a place of its own within its temporary directory.
    pub fn at(place: &str) -> Self {
        let scratch = Self {
            dir: tempfile::tempdir().unwrap(),
            place: place.into(),
        };
        scratch.copy_sdk();
        scratch.write(
            "plugins/Cargo.toml",
            "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n",
        );
        fs::copy(
            repository().join("Cargo.lock"),
            scratch.path("plugins/Cargo.lock"),
        )
        .unwrap();
        scratch
    }

    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(&self.place).join(path)
    }

    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(path)).unwrap();
        assert!(text.contains(from), "`{from}` is not in `{path}`:\n{text}");
        self.write(path, text.replace(from, to));
    }

    /// A plugin with the given further lines of its manifest, and source of its method.
    pub fn plugin(&self, name: &str, manifest: &str, method: &str) {
        self.write(
            &format!("plugins/crates/{name}/Cargo.toml"),
            format!(
                "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\
                 [package.metadata.hotmerge]\n\
                 [lib]\ncrate-type = [\"cdylib\"]\n\
                 [dependencies]\nhotmerge-sdk = {{ path = \"../../../hotmerge/plugins/sdk\" }}\n{manifest}"
            ),
        );
        self.write(
            &format!("plugins/crates/{name}/src/lib.rs"),
            PLUGIN.replace("METHOD", method),
        );
    }

    fn copy_sdk(&self) {
        for folder in ["plugins/abi", "plugins/sdk"] {
            copy_tree(
                &repository().join(folder),
                &self.path("hotmerge").join(folder),
            );
        }
        let text = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
        let mut root: toml_edit::DocumentMut = text.parse().unwrap();
        let members = toml_edit::Array::from_iter(["plugins/abi", "plugins/sdk"]);
        root["workspace"]["members"] = toml_edit::value(members);
        self.write("hotmerge/Cargo.toml", root.to_string());
    }

    /// The driver, called as cargo calls it, in the folder of the plugins.
    pub fn driver(&self) -> Command {
        let mut driver = clean(Command::new(env!("CARGO_BIN_EXE_cargo-hotmerge")));
        driver.arg("hotmerge").current_dir(self.path("plugins"));
        driver
    }

    /// `build-plugins`, offline and without notifying a host.
    pub fn build_plugins(&self) -> Command {
        let mut driver = self.driver();
        driver.args(["build-plugins", "--offline", "--notify", "never", "--json"]);
        driver
    }

    pub fn cargo(&self) -> Command {
        let mut cargo = clean(Command::new(env::var_os("CARGO").unwrap()));
        cargo.current_dir(self.path("plugins"));
        cargo
    }

    /// A file in the staging directory.
    pub fn staged(&self, path: &str) -> PathBuf {
        self.path("plugins/target/hotmerge/staging").join(path)
    }

    /// Where the driver lets cargo build this workspace.
    pub fn build_directory(&self) -> PathBuf {
        let all = self.path("plugins/target/hotmerge/build");
        let mut found = fs::read_dir(all)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let directory = found.next().unwrap();
        assert_eq!(found.next(), None, "one workspace has one directory");
        directory
    }

    /// A home for cargo that unpacks its sources anew.
    pub fn cargo_home(&self) -> PathBuf {
        let known = env::var_os("CARGO_HOME").map_or_else(
            || Path::new(&env::var_os("HOME").unwrap()).join(".cargo"),
            PathBuf::from,
        );
        let home = self.path("another/cargo home");
        fs::create_dir_all(home.join("registry")).unwrap();
        for shared in ["registry/index", "registry/cache", "config.toml"] {
            if known.join(shared).exists() {
                std::os::unix::fs::symlink(known.join(shared), home.join(shared)).unwrap();
            }
        }
        home
    }
}

const PLUGIN: &str = r#"//! A plugin of the tests.

use hotmerge_sdk::{Call, Error, Host, Plugin, Reply};

struct It;

impl Plugin for It {
    fn start(_host: Host, _config: &[u8]) -> Result<Self, Error> {
        Ok(Self)
    }

    fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
        METHOD
    }
}

hotmerge_sdk::export_plugin!(It);
"#;

/// What a machine or its user may have set must not decide about a test.
fn clean(mut command: Command) -> Command {
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let is_flag = name.contains("RUSTFLAGS") || name.contains("WRAPPER");
        let is_cargo = name.starts_with("CARGO_BUILD_")
            || name.starts_with("CARGO_TARGET_")
            || name.starts_with("CARGO_PROFILE_")
            || name == "CARGO_INCREMENTAL";
        if is_flag || is_cargo {
            command.env_remove(name);
        }
    }
    command
}

pub fn copy_tree(from: &Path, to: &Path) {
    for entry in WalkDir::new(from) {
        let entry = entry.unwrap();
        let to = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(to).unwrap();
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The lines that a successful `--json` run wrote.
pub fn lines(command: &mut Command) -> Vec<Value> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What `key` says in the line of `plugin`.
pub fn field(lines: &[Value], plugin: &str, key: &str) -> String {
    let line = lines.iter().find(|line| line["plugin"] == plugin);
    let line = line.unwrap_or_else(|| panic!("no `{plugin}` in {lines:?}"));
    line[key]
        .as_str()
        .unwrap_or_else(|| panic!("no `{key}` in {line}"))
        .to_owned()
}

/// The exit code and what was said about it.
pub fn failure(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), stderr(&output))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether a file holds a text.
pub fn holds(path: &Path, text: &str) -> bool {
    let bytes = fs::read(path).unwrap();
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// The inode, which changes when a file is replaced.
pub fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    File::open(path).unwrap().metadata().unwrap().ino()
}

/// The source of a method.
pub const HELLO: &str = "let _ = call; reply.text(\"hello\")";

/// The cheapest build: nothing here is about speed.
pub fn dev(scratch: &Scratch) -> Command {
    let mut driver = scratch.build_plugins();
    driver.args(["--profile", "dev"]);
    driver
}

/// A workspace with the plugin `one`.
pub fn one_plugin() -> Scratch {
    let scratch = Scratch::new();
    scratch.plugin("one", "", HELLO);
    scratch
}
