//! `capi`: the C library, as a shared object with what programs need to build with it.
//!
//! Cargo makes a static library; the C compiler links it, because the Rust compiler's own way to a shared
//! library takes no symbol versions.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;

use crate::{
    cargo::{Cargo, Resolution},
    exit, output,
};

/// The package of the library.
const PACKAGE: &str = "hotmerge-capi";

/// The version of its binary interface. It changes when programs must be rebuilt.
const ABI: u32 = 0;

/// The system libraries that the standard library needs.
const SYSTEM: [&str; 5] = ["-lgcc_s", "-lpthread", "-lm", "-ldl", "-lc"];

/// Build the C library: libhotmerge.so, hotmerge.h and hotmerge.pc
///
/// Links with the program in `CC` (default: cc) and the options in `LDFLAGS`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory that gets the files [default: capi in the target directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Build with the profile `dev`
    #[arg(long)]
    debug: bool,
    /// Directory that hotmerge.pc names as the library's
    #[arg(long, value_name = "DIR", default_value = "/usr/lib")]
    libdir: String,
    /// Directory that hotmerge.pc names as the header's
    #[arg(long, value_name = "DIR", default_value = "/usr/include")]
    includedir: String,
    #[command(flatten)]
    resolution: Resolution,
}

/// Runs the command.
///
/// # Errors
/// If the library does not build or link, or a file cannot be written.
pub fn run(args: &Args) -> Result<u8> {
    let cargo = Cargo::locate(None)?;
    let metadata = cargo.workspace()?;
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == PACKAGE)
        .context("this workspace does not have the C library")?;
    let sources = package
        .manifest_path
        .parent()
        .context("a manifest lies in a directory")?
        .as_std_path();
    let version = package.version.to_string();
    let default = || metadata.target_directory.as_std_path().join("capi");
    let out = args.out.clone().unwrap_or_else(default);
    fs::create_dir_all(&out)
        .with_context(|| format!("failed to make the directory `{}`", out.display()))?;
    let archive = build(&cargo, args)?;
    let library = out.join(format!("libhotmerge.so.{version}"));
    link(&archive, &sources.join("hotmerge.map"), &library)?;
    name(&out, &format!("libhotmerge.so.{ABI}"), &library)?;
    name(&out, "libhotmerge.so", &library)?;
    let header = out.join("hotmerge.h");
    fs::copy(sources.join("include/hotmerge.h"), &header)
        .with_context(|| format!("failed to write `{}`", header.display()))?;
    let pc = out.join("hotmerge.pc");
    fs::write(&pc, pkg_config(args, &version))
        .with_context(|| format!("failed to write `{}`", pc.display()))?;
    output::line(format_args!("{}", library.display()));
    Ok(exit::OK)
}

/// Builds the static library.
fn build(cargo: &Cargo, args: &Args) -> Result<PathBuf> {
    let mut command = cargo.command();
    command
        .args(["build", "--package", PACKAGE, "--lib"])
        .arg("--message-format=json-render-diagnostics")
        .args(args.resolution.options());
    if !args.debug {
        command.arg("--release");
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("failed to run cargo")?;
    if !output.status.success() {
        bail!("the C library failed to build");
    }
    for message in Message::parse_stream(&output.stdout[..]) {
        if let Message::CompilerArtifact(artifact) = message? {
            let is_archive = |file: &&cargo_metadata::camino::Utf8PathBuf| {
                file.extension() == Some("a") && artifact.target.name == "hotmerge_capi"
            };
            if let Some(archive) = artifact.filenames.iter().find(is_archive) {
                return Ok(archive.clone().into_std_path_buf());
            }
        }
    }
    bail!("cargo does not name the static library of `{PACKAGE}`")
}

/// Links the shared library.
fn link(archive: &Path, versions: &Path, library: &Path) -> Result<()> {
    let given = |name| env::var_os(name).filter(|value| !value.is_empty());
    let compiler = given("CC").unwrap_or_else(|| "cc".into());
    // As make does it: several words are a program and its options.
    let mut words = words(&compiler);
    let program = words.next().context("`CC` is blank")?;
    let mut command = Command::new(program);
    command.args(words).arg("-shared").arg("-o").arg(library);
    command.args(self::words(&given("LDFLAGS").unwrap_or_default()));
    command.arg(format!("-Wl,-soname,libhotmerge.so.{ABI}"));
    command.arg(joined("-Wl,--version-script=", versions.as_os_str()));
    command.arg("-Wl,--whole-archive").arg(archive);
    command.args([
        "-Wl,--no-whole-archive",
        "-Wl,--gc-sections",
        "-Wl,--no-undefined",
    ]);
    // Its threads would run on in memory that is gone.
    command.args(["-Wl,-z,nodelete", "-Wl,-z,relro,-z,now"]);
    command.args(SYSTEM);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("failed to run the C compiler `{}`", compiler.display()))?;
    if !status.success() {
        bail!(
            "the C compiler `{}` failed to link the library",
            compiler.display()
        );
    }
    Ok(())
}

fn words(text: &OsStr) -> impl Iterator<Item = OsString> {
    let text = text.to_string_lossy().into_owned();
    let words: Vec<_> = text.split_whitespace().map(OsString::from).collect();
    words.into_iter()
}

fn joined(option: &str, value: &OsStr) -> OsString {
    let mut joined = OsString::from(option);
    joined.push(value);
    joined
}

/// Makes `name` a link to the library.
fn name(out: &Path, name: &str, library: &Path) -> Result<()> {
    let link = out.join(name);
    let target = library.file_name().context("a library has a name")?;
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => symlink(target, &link),
    }
    .with_context(|| format!("failed to make the link `{}`", link.display()))
}

fn pkg_config(args: &Args, version: &str) -> String {
    let (libdir, includedir) = (&args.libdir, &args.includedir);
    format!(
        "libdir={libdir}\nincludedir={includedir}\n\n\
         Name: hotmerge\n\
         Description: Runs plugins and replaces them without a restart\n\
         Version: {version}\n\
         Libs: -L${{libdir}} -lhotmerge\n\
         Cflags: -I${{includedir}}\n"
    )
}
