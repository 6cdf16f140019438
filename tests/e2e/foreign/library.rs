//! The C library and the programs that are built with it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use hotmerge_tests::{BUILT, SOON, driver, repository, run, scratch};
use tempfile::TempDir;

/// The directory that the driver built the library into.
pub fn library() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let out = scratch().join("capi");
        let mut build = Command::new(driver());
        build.current_dir(repository());
        build
            .args(["capi", "--debug", "--locked", "--out"])
            .arg(&out);
        build
            .arg("--libdir")
            .arg(&out)
            .arg("--includedir")
            .arg(&out);
        run(&mut build, BUILT).ok();
        out
    });
    &LIBRARY
}

/// A program that a compiler made of a source with the library, in a directory of its own.
pub struct Compiled {
    pub program: PathBuf,
    _dir: TempDir,
}

/// Compiles a source of the repository.
pub fn compile(compiler: &str, options: &[&str], source: &str) -> Compiled {
    let dir = TempDir::new().expect("there is room for a program");
    let program = dir.path().join("program");
    let mut command = Command::new(compiler);
    command
        .args(["-Wall", "-Wextra", "-Werror", "-g", "-o"])
        .arg(&program);
    command.args(options).arg(repository().join(source));
    command.arg("-I").arg(library()).arg("-L").arg(library());
    command.args(["-lhotmerge", "-pthread"]);
    let mut path = std::ffi::OsString::from("-Wl,-rpath,");
    path.push(library());
    command.arg(path);
    run(&mut command, SOON).ok();
    Compiled { program, _dir: dir }
}

impl Compiled {
    pub fn command(&self) -> Command {
        Command::new(&self.program)
    }
}
