//! One test's world.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use hotmerge_meta::RuntimeDir;
use tempfile::TempDir;

use crate::{Package, Ran, SOON, TestHost, Variant, hosts_are_ordinary, hotmerge, run};

/// Whether plugins live in workers, unless a test says so itself. Most tests are about the life
/// cycle, which must hold in both: `HOTMERGE_TEST_ISOLATION=process` runs them with workers.
pub(crate) fn in_workers() -> bool {
    match std::env::var("HOTMERGE_TEST_ISOLATION").as_deref() {
        Err(_) | Ok("host") => false,
        Ok("process") => true,
        Ok(other) => panic!("HOTMERGE_TEST_ISOLATION is `host` or `process`, not `{other}`"),
    }
}

fn isolation(config: &str) -> String {
    match in_workers() {
        _ if config.contains("isolation") => String::new(),
        true => "isolation = \"process\"\n".to_owned(),
        false => "isolation = \"host\"\n".to_owned(),
    }
}

/// A plugin directory and a runtime directory, in a temporary directory of their own.
#[derive(Debug)]
pub struct Lab {
    dir: TempDir,
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// An empty plugin directory, and no host.
    ///
    /// # Panics
    /// If there is no place for temporary files.
    pub fn new() -> Self {
        // Sockets have short names: not below the target directory.
        let dir = tempfile::Builder::new()
            .prefix("hotmerge-test-")
            .tempdir()
            .expect("temporary directories can be made");
        let lab = Self { dir };
        fs::create_dir(lab.plugin_dir()).expect("it is empty");
        lab
    }

    /// A place of this name in the test's own directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the host of this test looks for plugins.
    pub fn plugin_dir(&self) -> PathBuf {
        self.path("plugins")
    }

    /// The state directory of this test's host.
    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// Where the host of this test is found.
    pub fn runtime_dir(&self) -> RuntimeDir {
        RuntimeDir::new(self.path("run"))
    }

    /// A package in the plugin directory, which need not be there yet.
    pub fn package(&self, name: &str) -> Package {
        Package::at(self.plugin_dir().join(name))
    }

    /// Puts a plugin in place, as the only one of a package of its name.
    pub fn put(&self, variant: &Variant) {
        self.package(variant.meta.name.as_str()).put(&[variant]);
    }

    /// Runs `hotmerge` with the runtime directory of this test.
    pub fn hotmerge<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        run(self.command().args(arguments), SOON)
    }

    /// The objection of `hotmerge verify` to a plugin, with the configuration of the last host.
    ///
    /// # Panics
    /// If it does not mention the plugin.
    #[track_caller]
    pub fn verify_objects(&self, plugin: &str) -> Option<String> {
        let config = self.path("hotmerge.toml").display().to_string();
        let dir = self.plugin_dir().display().to_string();
        let mut verify = self.command();
        verify.args(["verify", "--json", "--config", &config, &dir]);
        // Root does not believe a plugin directory of the host's user.
        let lines = run(&mut self.as_host_user(verify), SOON).lines();
        let told = lines.iter().find(|line| line["plugin"] == plugin);
        let told = told.unwrap_or_else(|| panic!("nothing of `{plugin}` in {lines:#?}"));
        told["problem"].as_str().map(str::to_owned)
    }

    /// `hotmerge` with the runtime directory of this test, for more than arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(hotmerge());
        command
            .env(RuntimeDir::VARIABLE, self.runtime_dir().path())
            .env_remove("HOTMERGE_LOG")
            .env_remove("NOTIFY_SOCKET");
        command
    }

    /// Starts a host and waits until it is ready.
    #[track_caller]
    pub fn start(&self) -> TestHost {
        self.start_with("")
    }

    /// Starts a host with further lines of configuration. Things settle fast, unless the
    /// lines say otherwise.
    #[track_caller]
    pub fn start_with(&self, config: &str) -> TestHost {
        self.start_by(self.serve(config))
    }

    /// Starts a host by a command, as the user whose hosts the tests are about.
    #[track_caller]
    pub fn start_by(&self, serve: Command) -> TestHost {
        TestHost::start(self.as_host_user(serve), self.runtime_dir())
    }

    /// A command of `hotmerge`, run by the user whose hosts the tests are about.
    pub fn as_host_user(&self, command: Command) -> Command {
        match hosts_are_ordinary() {
            true => self.as_ordinary_user(command),
            false => command,
        }
    }

    /// The command that starts a host with further lines of configuration.
    pub fn serve(&self, config: &str) -> Command {
        self.serve_from(&self.plugin_dir(), config)
    }

    /// The command that starts a host on another plugin directory.
    ///
    /// # Panics
    /// If the configuration cannot be written.
    pub fn serve_from(&self, plugin_dir: &Path, config: &str) -> Command {
        let path = self.path("hotmerge.toml");
        let settle = if config.contains("settle_ms") {
            ""
        } else {
            "settle_ms = 100\n"
        };
        let isolation = isolation(config);
        // The fixtures use sockets, which nobody grants them.
        let symbols = if config.contains("symbols") {
            ""
        } else {
            "symbols = \"off\"\n"
        };
        fs::write(&path, format!("{settle}{isolation}{symbols}{config}\n"))
            .expect("the test's own directory");
        let mut command = self.command();
        command
            .arg("serve")
            .args(["--log-format", "json", "--log", "info"])
            .arg("--config")
            .arg(path)
            .arg("--plugin-dir")
            .arg(plugin_dir);
        if !config.contains("state_dir") {
            command.arg("--state-dir").arg(self.state_dir());
        }
        if in_workers() && !config.contains("worker") {
            command.arg("--worker").arg(self.worker());
        }
        command
    }
}
