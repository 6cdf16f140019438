//! Where the programs under test are, and where the tests may build.
//!
//! Cargo builds them, once per test binary. If they are built already, the tester says so by
//! `HOTMERGE_TEST_HOST` and `HOTMERGE_TEST_DRIVER`.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use cargo_metadata::{Message, MetadataCommand};

struct Programs {
    host: PathBuf,
    driver: PathBuf,
}

static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| {
    let given = |name| env::var_os(name).map(PathBuf::from);
    match (given("HOTMERGE_TEST_HOST"), given("HOTMERGE_TEST_DRIVER")) {
        (Some(host), Some(driver)) => Programs { host, driver },
        _ => {
            let (host, driver) = (
                ["hotmerge-program", "hotmerge"],
                ["hotmerge-xtask", "xtask"],
            );
            let what = [host, driver].map(|[package, bin]| ["--package", package, "--bin", bin]);
            let built = build(what.as_flattened());
            Programs {
                host: executable(&built, "hotmerge"),
                driver: executable(&built, "xtask"),
            }
        }
    }
});

static SCRATCH: LazyLock<PathBuf> = LazyLock::new(|| {
    let metadata = MetadataCommand::new()
        .manifest_path(repository().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo describes the repository");
    metadata.target_directory.as_std_path().join("fixtures")
});

/// The program `hotmerge`.
pub fn hotmerge() -> &'static Path {
    &PROGRAMS.host
}

/// The program that sandboxed plugins live in: `HOTMERGE_TEST_WORKER`, or built by cargo.
pub fn worker() -> &'static Path {
    static WORKER: LazyLock<PathBuf> = LazyLock::new(|| {
        env::var_os("HOTMERGE_TEST_WORKER").map_or_else(
            || {
                let what = ["--package", "hotmerge-worker", "--bin", "hotmerge-worker"];
                executable(&build(&what), "hotmerge-worker")
            },
            PathBuf::from,
        )
    });
    &WORKER
}

/// The driver, as `cargo xtask` runs it.
pub fn driver() -> &'static Path {
    &PROGRAMS.driver
}

/// The program `hotmerge-announce`.
pub fn announcer() -> &'static Path {
    static ANNOUNCER: LazyLock<PathBuf> = LazyLock::new(|| {
        let what = ["--package", "hotmerge-announcement", "--features", "cli"];
        executable(&build(&what), "hotmerge-announce")
    });
    &ANNOUNCER
}

/// The example of that name beside the host.
///
/// # Panics
/// If it does not build.
pub fn example(name: &str) -> PathBuf {
    example_of("hotmerge-daemon", name)
}

/// The example of that name of a crate.
pub(crate) fn example_of(package: &str, name: &str) -> PathBuf {
    // By itself: it may use what the crate's tests use, the host may not.
    let built = build(&["--package", package, "--example", name]);
    executable(&built, name)
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the tests are a folder of the repository")
}

/// The directory of files that are built for tests and kept between runs, inside cargo's target directory.
pub fn scratch() -> &'static Path {
    &SCRATCH
}

/// Cargo, as the one that runs the tests.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into())
}

fn build(what: &[&str]) -> Vec<Message> {
    let mut cargo = Command::new(cargo());
    cargo
        .current_dir(repository())
        .args([
            "build",
            "--quiet",
            "--message-format=json-render-diagnostics",
        ])
        .args(what);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the programs do not build:\n{said}"
    );
    Message::parse_stream(&output.stdout[..])
        .map(|message| message.expect("cargo writes messages"))
        .collect()
}

fn executable(built: &[Message], name: &str) -> PathBuf {
    let mut executables = built.iter().filter_map(|message| match message {
        Message::CompilerArtifact(artifact) if artifact.target.name == name => {
            artifact.executable.clone()
        }
        _ => None,
    });
    let found = executables.next();
    found.expect("cargo names the program").into_std_path_buf()
}
