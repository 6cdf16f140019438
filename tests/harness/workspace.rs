//! A plugin author's workspace, and the driver run on it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{BUILT, Lab, Ran, driver, process::run, repository, scratch, variant::lock};

const SOURCE: &str = include_str!("../fixtures/small/src/lib.rs");

/// A workspace of small plugins. Its place is the same in each run, so that cargo rebuilds
/// only what has changed.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    _lock: File,
}

impl Workspace {
    /// A workspace of these plugins, as new. `test` is a name that no other test uses.
    ///
    /// # Panics
    /// If the target directory cannot be written.
    pub fn new<'a>(test: &str, plugins: impl IntoIterator<Item = &'a str>) -> Self {
        let root = scratch().join("workspaces").join(test);
        let workspace = Self {
            _lock: lock(&root),
            root,
        };
        let plugins: Vec<_> = plugins.into_iter().collect();
        workspace.write(
            "Cargo.toml",
            "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n",
        );
        workspace.forget_all_but(&plugins);
        for plugin in plugins {
            workspace.add(plugin, "");
        }
        workspace
    }

    /// A workspace of crates of this repository, as they are. `test` is a name that no other test uses.
    ///
    /// # Panics
    /// If the target directory cannot be written.
    pub fn copied(test: &str, crates: &[&str]) -> Self {
        let root = scratch().join("workspaces").join(test);
        let workspace = Self {
            _lock: lock(&root),
            root,
        };
        for name in crates {
            workspace.copy(Path::new(name));
        }
        let manifest = repository().join("Cargo.toml");
        let manifest = fs::read_to_string(manifest).expect("the repository is a workspace");
        let (_, rest) = (manifest.split_once("\n[workspace.package]")).expect("crates share it");
        workspace.write(
            "Cargo.toml",
            &format!(
                "[workspace]\nresolver = \"3\"\nmembers = {crates:?}\n\n[workspace.package]{rest}"
            ),
        );
        // Without it, offline, other versions might be chosen, which are not there.
        let lock = fs::read_to_string(repository().join("Cargo.lock"));
        if !workspace.path("Cargo.lock").exists() {
            workspace.write("Cargo.lock", &lock.expect("versions are locked"));
        }
        workspace
    }

    fn copy(&self, path: &Path) {
        for entry in fs::read_dir(repository().join(path)).expect("the crate is there") {
            let entry = entry.expect("the directory can be read");
            let path = path.join(entry.file_name());
            if entry.path().is_dir() {
                self.copy(&path);
            } else {
                let text = fs::read_to_string(entry.path()).expect("sources are text");
                self.write(path.to_str().expect("its name is text"), &text);
            }
        }
    }

    fn forget_all_but(&self, plugins: &[&str]) {
        let Ok(entries) = fs::read_dir(self.path("crates")) else {
            return;
        };
        for entry in entries {
            let entry = entry.expect("the directory can be read");
            if !plugins.iter().any(|plugin| entry.file_name() == *plugin) {
                fs::remove_dir_all(entry.path()).expect("it is the test's own");
            }
        }
    }

    /// Adds a plugin, or makes one as new; with further lines in its `Cargo.toml` table for
    /// hotmerge.
    pub fn add(&self, plugin: &str, table: &str) {
        let sdk = repository().join("plugins/sdk");
        let manifest = format!(
            "[package]\nname = \"{plugin}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n\
             [package.metadata.hotmerge]\nname = \"{plugin}\"\n{table}\n\
             [lib]\ncrate-type = [\"cdylib\"]\n\n\
             [dependencies]\nhotmerge-sdk = {{ path = \"{}\" }}\n",
            sdk.display()
        );
        self.write(&format!("crates/{plugin}/Cargo.toml"), &manifest);
        let source = SOURCE.replace(
            "ANSWER: &str = \"one\"",
            &format!("ANSWER: &str = \"{plugin} one\""),
        );
        self.write(&format!("crates/{plugin}/src/lib.rs"), &source);
    }

    /// Removes a plugin.
    ///
    /// # Panics
    /// If there is none of the name.
    pub fn remove(&self, plugin: &str) {
        fs::remove_dir_all(self.path(&format!("crates/{plugin}"))).expect("the plugin is there");
    }

    /// A file of the workspace.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Writes a file; one that is so already keeps its time.
    ///
    /// # Panics
    /// If the target directory cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return;
        }
        fs::create_dir_all(path.parent().expect("it is in the workspace"))
            .expect("the target directory can be written");
        fs::write(path, text).expect("the target directory can be written");
    }

    /// Changes a plugin's source.
    ///
    /// # Panics
    /// If `from` is not in it.
    #[track_caller]
    pub fn edit(&self, plugin: &str, from: &str, to: &str) {
        self.edit_file(&format!("crates/{plugin}/src/lib.rs"), from, to);
    }

    /// Changes a file.
    ///
    /// # Panics
    /// If `from` is not in it.
    #[track_caller]
    pub fn edit_file(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(path)).expect("the file is there");
        assert!(text.contains(from), "no `{from}` in:\n{text}");
        self.write(path, &text.replace(from, to));
    }

    /// The driver for this workspace, staging into the plugin directory of a lab and telling
    /// its host if there is one.
    pub fn driver(&self, lab: &Lab) -> Driver {
        self.driver_into(lab, &lab.plugin_dir())
    }

    /// The driver for this workspace, staging elsewhere.
    pub fn driver_into(&self, lab: &Lab, staging: &Path) -> Driver {
        let driver = Driver::new(
            &self.root.join("Cargo.toml"),
            staging,
            &self.root.join("target"),
        );
        let runtime_dir = lab.runtime_dir();
        driver.arguments([OsStr::new("--runtime-dir"), runtime_dir.path().as_os_str()])
    }
}

/// A run of `build-plugins`.
#[derive(Debug)]
pub struct Driver {
    command: Command,
}

impl Driver {
    /// On the workspace of a manifest, offline and with output for programs.
    pub fn new(manifest: &Path, staging: &Path, build_dir: &Path) -> Self {
        let mut command = Command::new(driver());
        command
            .args(["build-plugins", "--offline", "--json"])
            .arg("--manifest-path")
            .arg(manifest)
            .arg("--staging")
            .arg(staging)
            // Cargo's own, not the one that the tests are built in.
            .env("CARGO_TARGET_DIR", build_dir);
        Self { command }
    }

    /// Adds arguments.
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Adds a variable to the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it.
    #[track_caller]
    pub fn run(mut self) -> Ran {
        run(&mut self.command, BUILT)
    }
}

/// The driver's action for each plugin.
///
/// # Panics
/// If these are not the driver's lines.
#[track_caller]
pub fn actions(lines: &[Value]) -> BTreeMap<&str, &str> {
    let pairs = lines.iter().map(|line| {
        let pair = line["plugin"].as_str().zip(line["action"].as_str());
        pair.unwrap_or_else(|| panic!("neither plugin nor action in {line}"))
    });
    pairs.collect()
}
