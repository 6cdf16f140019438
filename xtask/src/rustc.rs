//! The driver in the compiler's place: what makes builds byte-identical.
//!
//! A plugin's bytes depend on more than its sources. Panic messages carry the paths of the
//! sources of dependencies and of generated code; and cargo names every crate (`-C metadata`,
//! which decides symbol names, type ids and the order of code) after the place of path
//! dependencies, the level of debug information and whether a target was asked for. So the
//! driver sets itself as cargo's `RUSTC_WRAPPER`, and for each crate
//!
//! * makes paths in messages independent of the directory, relative to the package's own root:
//!   `serde-1.0.0/src/lib.rs`;
//! * derives the crate's metadata from its identity: package, version, [source](crate::source),
//!   features;
//!
//! then becomes the compiler, or the wrapper that the user has set.
//!
//! Why a wrapper: cargo takes flags from one of four sources, the first that exists, so a
//! driver that sets any of them can silently drop the user's. A wrapper adds to what
//! cargo made of all of them, without having to know. The drawback: cargo does not know about
//! the wrapper, so builds without it need a separate target directory.
//!
//! Not covered: `env!("CARGO_MANIFEST_DIR")` and the like, which are part of the crate's source;
//! paths that C compilers put into objects; `debug = "full"`, for which rustc may generate different code.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use crate::{output::note, owner, source};

/// If set, this process acts as the compiler. The value is the user's own wrapper, or empty.
const NEXT: &str = "HOTMERGE_NEXT_RUSTC_WRAPPER";

/// The lock file of the workspace, with what cargo has resolved.
const LOCK: &str = "HOTMERGE_CARGO_LOCK";

/// What the driver passes to itself through cargo.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wrapper {
    /// The user's own `RUSTC_WRAPPER`, however it was set.
    pub next: OsString,
    /// Where cargo writes what it has resolved.
    pub lock: PathBuf,
}

impl Wrapper {
    /// Makes `cargo` run this program in place of the compiler.
    pub(crate) fn apply(&self, cargo: &mut Command) -> std::io::Result<()> {
        cargo
            .env("RUSTC_WRAPPER", env::current_exe()?)
            .env(NEXT, &self.next)
            .env(LOCK, &self.lock);
        Ok(())
    }
}

/// If cargo called this process as the compiler, executes the compiler and does not return, or
/// reports why that failed. Otherwise `None`.
pub(crate) fn take_over() -> Option<ExitCode> {
    let next = env::var_os(NEXT)?;
    let given: Vec<OsString> = env::args_os().skip(1).collect();
    let arguments = match Crate::from_env() {
        Some(unit) => {
            if let Err(error) = unit.claim(&given) {
                note(format_args!(
                    "error: failed to record the package of `{}`: {error}",
                    unit.name
                ));
                return Some(ExitCode::FAILURE);
            }
            unit.rewrite(given)
        }
        None => given,
    };
    let wrapper = (!next.is_empty()).then_some(next);
    let mut command = wrapper.into_iter().chain(arguments);
    let program = command.next()?;
    let error = Command::new(&program)
        .args(command)
        .env_remove(NEXT)
        .env_remove(LOCK)
        .exec();
    note(format_args!(
        "error: failed to run `{}`: {error}",
        program.display()
    ));
    Some(ExitCode::FAILURE)
}

/// Cargo's description of the crate in the compiler's environment.
struct Crate {
    name: String,
    version: String,
    manifest_dir: OsString,
    out_dir: Option<OsString>,
    /// The package's directory relative to the compiler's working directory, to which paths of
    /// packages within the workspace are relative.
    within: Option<PathBuf>,
    lock: PathBuf,
}

impl Crate {
    /// `None` when cargo only queries the compiler.
    fn from_env() -> Option<Self> {
        let name = env::var("CARGO_PKG_NAME").ok()?;
        let version = env::var("CARGO_PKG_VERSION").ok()?;
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")?;
        Some(Self {
            within: below_here(Path::new(&manifest_dir)),
            lock: env::var_os(LOCK).unwrap_or_default().into(),
            manifest_dir,
            out_dir: env::var_os("OUT_DIR"),
            name,
            version,
        })
    }

    /// Records the package of the library that the compiler writes, if it is a cdylib.
    fn claim(&self, arguments: &[OsString]) -> std::io::Result<()> {
        let is_library = values(arguments, "--crate-type").any(|kind| kind == "cdylib");
        let out_dir = arguments
            .windows(2)
            .find(|pair| pair[0] == "--out-dir")
            .map(|pair| &pair[1]);
        match (out_dir, values(arguments, "--crate-name").next()) {
            (Some(out_dir), Some(name)) if is_library => {
                owner::claim(out_dir, name, &self.manifest_dir)
            }
            _ => Ok(()),
        }
    }

    fn rewrite(&self, mut arguments: Vec<OsString>) -> Vec<OsString> {
        // A plugin that is nothing but a plugin: no other crate links it, so its version need
        // not tell it from others, and a new version number alone changes no byte.
        let is_leaf = values(&arguments, "--crate-type").eq(["cdylib"]);
        let place = match is_leaf {
            true => self.name.clone(),
            false => format!("{}-{}", self.name, self.version),
        };
        let source = match is_leaf {
            true => String::new(),
            false => source::of(
                &self.name,
                &self.version,
                Path::new(&self.manifest_dir),
                &self.lock,
            ),
        };
        rename(&mut arguments, &format!("{place}{source}"));
        if !already_remaps(&arguments) {
            // Debug information and compiler messages keep the paths that tools can open.
            arguments.push("--remap-path-scope=macro".into());
        }
        // The last match wins, and build directories may lie within the sources.
        match &self.within {
            // An empty prefix matches every path: the user's own, which come later, take precedence.
            Some(within) if within.as_os_str().is_empty() => {
                let options = arguments.iter().position(|it| it == "--crate-name");
                arguments.insert(
                    options.unwrap_or(arguments.len()),
                    remap(OsStr::new(""), &place),
                );
            }
            Some(within) => arguments.push(remap(within.as_os_str(), &place)),
            None => {}
        }
        arguments.push(remap(&self.manifest_dir, &place));
        if let Some(out_dir) = &self.out_dir {
            arguments.push(remap(out_dir, &format!("{place}/out")));
        }
        arguments
    }
}

/// The path of `directory` relative to the working directory, also if symlinks lead there.
fn below_here(directory: &Path) -> Option<PathBuf> {
    let identity = |path: &Path| {
        let metadata = path.metadata().ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let here = identity(Path::new("."))?;
    let above = directory
        .ancestors()
        .find(|above| identity(above) == Some(here))?;
    directory.strip_prefix(above).ok().map(Path::to_owned)
}

/// Replaces cargo's metadata for the crate with the crate's identity.
fn rename(arguments: &mut [OsString], place: &str) {
    // Other configuration comes from flags and build scripts: it is not part of a name.
    let features = values(arguments, "--cfg").filter(|value| value.starts_with("feature="));
    let name: Vec<_> = values(arguments, "--crate-name")
        .chain(values(arguments, "--crate-type"))
        .chain(features)
        .collect();
    // The compiler splits the value at blanks.
    let name = format!("{place}/{}", name.join("/")).replace(char::is_whitespace, "_");
    let cargos = arguments.windows(2).position(|pair| {
        pair[0] == "-C"
            && pair[1]
                .to_str()
                .is_some_and(|value| value.starts_with("metadata="))
    });
    // Those that follow cargo's are the user's.
    if let Some(index) = cargos {
        arguments[index + 1] = format!("metadata={name}").into();
    }
}

/// The values of `option VALUE` among the arguments, in their order.
fn values<'a>(arguments: &'a [OsString], option: &'static str) -> impl Iterator<Item = &'a str> {
    arguments
        .windows(2)
        .filter(move |pair| pair[0] == option)
        .filter_map(|pair| pair[1].to_str())
}

/// A user who remaps paths has also chosen the scope: narrowing it would undo part of that.
fn already_remaps(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .filter_map(|argument| argument.to_str())
        .any(|argument| argument.starts_with("--remap-path-"))
}

fn remap(from: &OsStr, to: &str) -> OsString {
    let mut argument = OsString::from("--remap-path-prefix=");
    argument.push(from);
    argument.push("=");
    argument.push(to);
    argument
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serde() -> Crate {
        Crate {
            name: "serde".into(),
            version: "1.0.0".into(),
            manifest_dir: "/home/me/serde".into(),
            out_dir: None,
            within: None,
            lock: PathBuf::new(),
        }
    }

    fn rewrite(unit: &Crate, arguments: &str) -> String {
        let given = arguments.split(' ').map(OsString::from).collect();
        let all = unit
            .rewrite(given)
            .into_iter()
            .map(|argument| argument.into_string().unwrap());
        all.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn crate_metadata_depends_only_on_identity() {
        assert_eq!(
            rewrite(
                &serde(),
                "rustc --crate-name serde src/lib.rs --crate-type lib --cfg feature=\"std\" -C metadata=0123 -C opt-level=3",
            ),
            "rustc --crate-name serde src/lib.rs --crate-type lib --cfg feature=\"std\" \
             -C metadata=serde-1.0.0/path/serde/lib/feature=\"std\" -C opt-level=3 \
             --remap-path-scope=macro --remap-path-prefix=/home/me/serde=serde-1.0.0",
        );
    }

    #[test]
    fn a_plugins_version_never_enters_its_code() {
        let plugin = Crate {
            out_dir: Some("/t/out".into()),
            ..serde()
        };
        assert_eq!(
            rewrite(
                &plugin,
                "rustc --crate-name serde --crate-type cdylib -C metadata=0123"
            ),
            "rustc --crate-name serde --crate-type cdylib -C metadata=serde/serde/cdylib \
             --remap-path-scope=macro --remap-path-prefix=/home/me/serde=serde \
             --remap-path-prefix=/t/out=serde/out",
        );
    }

    #[test]
    fn paths_start_at_the_packages_own_root() {
        let member = Crate {
            within: Some("crates/serde".into()),
            ..serde()
        };
        assert!(
            rewrite(&member, "rustc --crate-name serde crates/serde/src/lib.rs")
                .contains(" --remap-path-prefix=crates/serde=serde-1.0.0 ")
        );
        let root = Crate {
            within: Some(PathBuf::new()),
            ..serde()
        };
        assert!(
            rewrite(
                &root,
                "wrapper rustc --crate-name serde src/lib.rs --remap-path-prefix=a=b"
            )
            .starts_with("wrapper rustc --remap-path-prefix==serde-1.0.0 --crate-name serde")
        );
    }

    #[test]
    fn user_flags_stay_out_of_crate_names() {
        let all = rewrite(
            &serde(),
            "rustc --crate-name serde -C metadata=0 --cfg loom=\"x\" -C metadata=mine --remap-path-prefix=/a=/b",
        );
        assert_eq!(
            all,
            "rustc --crate-name serde -C metadata=serde-1.0.0/path/serde --cfg loom=\"x\" -C metadata=mine \
             --remap-path-prefix=/a=/b --remap-path-prefix=/home/me/serde=serde-1.0.0",
        );
    }
}
