//! A throwaway Portage, and the host that runs in it.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail, ensure};
use hotmerge_meta::Digest;
use hotmerge_tests::{repository, skipped};
use rustix::fs::FlockOperation;
use serde_json::Value;
use tempfile::TempDir;

use crate::artifacts;

/// A plugin is small, and a test waits for each; what is not there is not to be had.
const SETTINGS: &str = r#"
CARGO_PROFILE_RELEASE_OPT_LEVEL="1"
CARGO_PROFILE_RELEASE_DEBUG="0"
FETCHCOMMAND="false"
RESUMECOMMAND="false"
"#;

/// A script of the project's.
pub(crate) fn script(name: &str) -> Command {
    let mut command = Command::new(repository().join("scripts").join(name));
    // What signals its process group from a lab is not to reach the tests.
    command.stdin(Stdio::null()).process_group(0);
    command
}

/// Runs a command and returns all that it said; an error says it too.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let (code, said) = ended(command)?;
    ensure!(
        code == Some(0),
        "`{command:?}` ended with {code:?}:\n{said}"
    );
    Ok(said)
}

/// Runs a command and returns its result, without what it said beside that to people.
pub(crate) fn printed(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("failed to start `{command:?}`"))?;
    ensure!(
        output.status.success(),
        "`{command:?}` ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command and returns its exit code and all that it said.
pub(crate) fn ended(command: &mut Command) -> Result<(Option<i32>, String)> {
    let output = command
        .output()
        .with_context(|| format!("failed to start `{command:?}`"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code(), said))
}

/// Whether labs in root mode can be had; says so if not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped("a lab in root mode needs root");
    }
    root
}

/// Where labs and their cache are: Portage drops privileges, so everyone must be able to
/// enter, and a source tree may lie in somebody's home.
fn base() -> Result<&'static Path> {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    if let Some(base) = BASE.get() {
        return Ok(base);
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let open = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o001 != 0);
    // A socket's path may have some hundred bytes, and a prefix takes its share of them.
    let base = if target.ancestors().all(open) && target.as_os_str().len() < 50 {
        target.join("emerge")
    } else {
        Path::new("/var/tmp").join(format!(
            "hotmerge-tests-{}",
            rustix::process::geteuid().as_raw()
        ))
    };
    fs::create_dir_all(&base).with_context(|| format!("failed to create `{}`", base.display()))?;
    let meta = fs::symlink_metadata(&base)?;
    ensure!(
        meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw(),
        "`{}` belongs to somebody else",
        base.display()
    );
    fs::set_permissions(&base, fs::Permissions::from_mode(0o755))?;
    Ok(BASE.get_or_init(|| base))
}

/// Where tools, tarballs and binary packages are kept for the next lab.
pub(crate) fn cache() -> Result<PathBuf> {
    let cache = base()?.join("cache");
    fs::create_dir_all(&cache)?;
    Ok(cache)
}

/// Which kind of lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A system of its own.
    Root,
    /// A directory.
    Prefix,
}

/// A lab. Dropped, all that runs in it ends and it is removed.
pub(crate) struct Lab {
    dir: PathBuf,
    mode: Mode,
    /// Keeps a lab in root mode open.
    keeper: Option<Child>,
    /// Removes the directory.
    _temporary: Option<TempDir>,
    /// Keeps others out of the one prefix that has a host.
    _lock: Option<File>,
}

impl Lab {
    /// A lab with the project's overlay and the test's own one, without any host.
    pub(crate) fn bare(mode: Mode) -> Result<Self> {
        let mut lab = Self::closed(mode)?;
        if mode == Mode::Root {
            lab.open()?;
        }
        Ok(lab)
    }

    /// The same, but one in root mode exists only while a command runs in it.
    pub(crate) fn closed(mode: Mode) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("lab-")
            .tempdir_in(base()?)?;
        let lab = Self {
            dir: dir.path().to_owned(),
            mode,
            keeper: None,
            _temporary: Some(dir),
            _lock: None,
        };
        lab.set_up()?;
        Ok(lab)
    }

    /// A lab in root mode with an installed and started host.
    pub(crate) fn with_host() -> Result<Self> {
        let lab = Self::with_stopped_host()?;
        lab.start_host()?;
        Ok(lab)
    }

    /// A lab in root mode with an installed host that does not run.
    pub(crate) fn with_stopped_host() -> Result<Self> {
        let lab = Self::bare(Mode::Root)?;
        artifacts::host_packages()?.copy_to(&lab.path("pkgs"))?;
        lab.emerge(&["--usepkgonly", "app-admin/hotmerge", "dev-lang/rust-bin"])?;
        Ok(lab)
    }

    /// The prefix with an installed host that does not run. There is one, because packages of a
    /// prefix are good for no other, and building them takes minutes.
    pub(crate) fn in_prefix_with_host() -> Result<Self> {
        let lock = File::create(base()?.join("prefix.lock"))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        let dir = base()?.join("prefix");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir(&dir)?;
        let lab = Self {
            dir,
            mode: Mode::Prefix,
            keeper: None,
            _temporary: None,
            _lock: Some(lock),
        };
        lab.set_up()?;
        artifacts::install_in_prefix(&lab)?;
        Ok(lab)
    }

    fn set_up(&self) -> Result<()> {
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o755))?;
        let made = self.path("made");
        fs::create_dir_all(made.join("metadata"))?;
        fs::create_dir_all(made.join("profiles"))?;
        fs::write(
            made.join("metadata/layout.conf"),
            "masters = gentoo hotmerge\nthin-manifests = true\nsign-manifests = false\n",
        )?;
        fs::write(made.join("profiles/repo_name"), "made\n")?;
        fs::write(made.join("profiles/categories"), "app-misc\n")?;
        let mut setup = script("portage-lab");
        setup.arg("setup").arg(&self.dir);
        setup.arg("--cache").arg(cache()?);
        setup.arg("--overlay").arg(repository().join("ebuilds"));
        setup.arg("--overlay").arg(made);
        if self.mode == Mode::Root {
            setup.arg("--root");
        }
        said(&mut setup)?;
        self.configure("50-test", SETTINGS)?;
        artifacts::release()?.copy_to(&self.path("distfiles"))
    }

    fn open(&mut self) -> Result<()> {
        let mut keeper = script("portage-lab");
        keeper.arg("run").arg(&self.dir);
        // It ends with this process, however that ends.
        keeper.args(["bash", "-c", "echo open; exec cat"]);
        let keeper = keeper
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let keeper = self.keeper.insert(keeper);
        let stdout = keeper
            .stdout
            .take()
            .context("the keeper's output is a pipe")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "open\n", "the lab did not open");
        Ok(())
    }

    /// A file or directory of the lab's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Adds a file to make.conf.
    pub(crate) fn configure(&self, name: &str, settings: &str) -> Result<()> {
        fs::write(self.path("portage/make.conf").join(name), settings)?;
        Ok(())
    }

    /// A command in the lab; `words` may begin with `NAME=VALUE`.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = script("portage-lab");
        command.arg("run").arg(&self.dir).args(words);
        command
    }

    /// Runs a shell script in the lab.
    pub(crate) fn shell(&self, text: &str) -> Result<String> {
        said(&mut self.command(&["bash", "-ec", text]))
    }

    /// Emerges, and returns what was said.
    pub(crate) fn emerge(&self, arguments: &[&str]) -> Result<String> {
        self.emerge_with(&[], arguments)
    }

    /// Emerges with settings of the form `NAME=VALUE`.
    pub(crate) fn emerge_with(&self, settings: &[&str], arguments: &[&str]) -> Result<String> {
        let words = [settings, &["emerge", "--oneshot", "--verbose"], arguments].concat();
        said(&mut self.command(&words))
    }

    /// Removes a package, and returns what was said.
    pub(crate) fn unmerge(&self, package: &str) -> Result<String> {
        said(&mut self.command(&["emerge", "--unmerge", package]))
    }

    /// Writes the Manifest of an ebuild's package; the ebuild is named from the repositories.
    pub(crate) fn manifest(&self, ebuild: &str) -> Result<()> {
        let ebuild = self.path("repos").join(ebuild);
        let ebuild = ebuild.to_str().context("a path is UTF-8")?;
        // By force: a tarball of this tree is not the one of the Manifest that is committed.
        said(&mut self.command(&["ebuild", "--force", ebuild, "manifest"]))?;
        Ok(())
    }

    /// Starts the host as a user does.
    pub(crate) fn start_host(&self) -> Result<()> {
        self.shell("rc-service hotmerge start || { cat /var/log/hotmerge.log; false; }")?;
        Ok(())
    }

    /// What goes before every path of the lab's system, as seen in the lab.
    fn prefix(&self) -> String {
        match self.mode {
            Mode::Root => String::new(),
            Mode::Prefix => self.path("eprefix").display().to_string(),
        }
    }

    /// Where the host of the lab is found, as seen in the lab.
    pub(crate) fn runtime_dir(&self) -> String {
        self.prefix() + "/run/hotmerge"
    }

    /// What the lab's `hotmerge` says; `command` is shell.
    pub(crate) fn host(&self, command: &str) -> Result<String> {
        let (prefix, runtime_dir) = (self.prefix(), self.runtime_dir());
        self.shell(&format!(
            "HOTMERGE_RUNTIME_DIR={runtime_dir} {prefix}/usr/bin/hotmerge {command}"
        ))
    }

    /// Starts the host of a prefix, where nobody else does.
    pub(crate) fn serve(&self) -> Result<Serving> {
        let prefix = self.prefix();
        let program = format!("{prefix}/usr/bin/hotmerge");
        let config = format!("--config={prefix}/etc/hotmerge/hotmerge.toml");
        let runtime = format!("--runtime-dir={}", self.runtime_dir());
        let mut serve = self.command(&[&program, "serve", &config, &runtime]);
        let process = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let serving = Serving(process);
        self.shell(&format!(
            "until {program} status {runtime} > /dev/null 2>&1; do sleep 0.1; done"
        ))?;
        Ok(serving)
    }

    /// The host's status object.
    pub(crate) fn status(&self) -> Result<Value> {
        self.status_in(&self.runtime_dir())
    }

    /// Counts from now on how often a host is asked to rescan its plugins.
    pub(crate) fn count_requests(&self) -> Result<()> {
        self.shell(
            "cd /usr/bin && mv hotmerge hotmerge.real
            printf '%s\\n' '#!/bin/sh' '[ \"$1\" != reload ] || echo >> /run/requests' \
                'exec /usr/bin/hotmerge.real \"$@\"' > hotmerge
            chmod +x hotmerge
            : > /run/requests",
        )?;
        Ok(())
    }

    /// How often one was asked.
    pub(crate) fn requests(&self) -> Result<usize> {
        Ok(self.shell("cat /run/requests")?.len())
    }

    /// The status object of some host in the lab.
    pub(crate) fn status_in(&self, runtime_dir: &str) -> Result<Value> {
        let said = self.host(&format!("status --json --runtime-dir {runtime_dir}"))?;
        serde_json::from_str(&said).with_context(|| format!("`{said}` is not a status"))
    }

    /// A plugin as the host sees it.
    pub(crate) fn plugin(&self, name: &str) -> Result<Seen> {
        let status = self.status()?;
        let plugins = status["plugins"].as_array().context("a list of plugins")?;
        let Some(plugin) = plugins.iter().find(|plugin| plugin["name"] == name) else {
            bail!("the host has no plugin `{name}`:\n{status:#}");
        };
        Ok(Seen {
            version: plugin["version"].as_str().unwrap_or_default().to_owned(),
            generation: plugin["generation"].as_u64().context("a generation")?,
            state: plugin["state"].as_str().unwrap_or_default().to_owned(),
            hash: plugin["hash"].as_str().map(str::parse).transpose()?,
            refused: plugin["refused"]["reason"].as_str().map(ToOwned::to_owned),
        })
    }
}

/// A host without a service manager. Dropped, it is ended.
pub(crate) struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Its input closes, it ends, and the kernel ends all else in the lab's name spaces.
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// What the host says of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub version: String,
    pub generation: u64,
    pub state: String,
    pub hash: Option<Digest>,
    pub refused: Option<String>,
}
