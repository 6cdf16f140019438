//! What the host decided for one worker, as it is handed over.

use std::{
    fmt, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Something that an operator grants to a plugin beyond computing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Grant {
    /// A file or directory tree: `fs:/path:ro` or `fs:/path:rw`.
    Files {
        /// Absolute, without `..`.
        path: PathBuf,
        /// Whether it may be written.
        write: bool,
    },
    /// The host's network: `net`.
    Network,
}

/// A text that is not a grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a grant; write `net`, `fs:/absolute/path:ro` or `fs:/absolute/path:rw`")]
pub struct GrantError(String);

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let wrong = || GrantError(text.to_owned());
        if text == "net" {
            return Ok(Self::Network);
        }
        let rest = text.strip_prefix("fs:").ok_or_else(wrong)?;
        let (path, mode) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let path = PathBuf::from(path);
        let plain = path.is_absolute()
            && path.parent().is_some()
            && path.components().all(|part| {
                use std::path::Component::{Normal, RootDir};
                matches!(part, Normal(_) | RootDir)
            });
        match mode {
            "ro" if plain => Ok(Self::Files { path, write: false }),
            "rw" if plain => Ok(Self::Files { path, write: true }),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Grant {
    type Error = GrantError;

    fn try_from(text: String) -> Result<Self, GrantError> {
        text.parse()
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network => f.write_str("net"),
            Self::Files { path, write } => {
                write!(
                    f,
                    "fs:{}:{}",
                    path.display(),
                    if *write { "rw" } else { "ro" }
                )
            }
        }
    }
}

impl From<Grant> for String {
    fn from(grant: Grant) -> Self {
        grant.to_string()
    }
}

/// How much a worker may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Private memory in bytes.
    pub memory_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open files, beyond those it starts with.
    pub files: u64,
    /// Processor time over its whole life, in seconds; 0 for no limit.
    pub cpu_s: u64,
    /// Thousandths of a processor that it may use at a time, where control groups are given.
    pub cpu_permille: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            threads: 64,
            files: 64,
            cpu_s: 0,
            cpu_permille: None,
        }
    }
}

/// What a granted path led to when the host judged it: the worker takes nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The granted path.
    pub path: PathBuf,
    device: u64,
    inode: u64,
}

impl Judged {
    /// The open file or directory that the host found there.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(path: &Path, found: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(found)?;
        Ok(Self {
            path: path.to_owned(),
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }
}

/// A compiled filter: one word an instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program(pub Vec<u64>);

/// Everything a worker needs to confine itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Whether it was started in namespaces of its own.
    pub namespaces: bool,
    /// User and group to become, as numbers inside its user namespace.
    pub become_id: Option<u32>,
    /// As whom it runs, as the host sees it.
    pub user: u32,
    /// What was granted.
    pub grants: Vec<Grant>,
    /// What its paths must lead to; those that the host did not judge may lead anywhere.
    pub judged: Vec<Judged>,
    /// How much it may use.
    pub limits: Limits,
    /// Size of the shared memory in bytes, which counts as address space.
    pub shared_bytes: u64,
    /// Filters before the plugin is loaded, in the order they are installed.
    pub first: Vec<Program>,
    /// The filter before anything of the plugin runs.
    pub second: Program,
    /// The shared memory's geometry.
    pub geometry: [u64; 5],
    /// That of the shared memory through which it calls other plugins, if it requires any.
    pub outgoing: Option<[u64; 5]>,
    /// Libraries of the C runtime to be loaded first: the plugin needs them, and their files are out
    /// of reach later.
    pub libraries: Vec<String>,
    /// The plugin's table header, as the host read it from the verified file.
    pub header: [u8; 16],
    /// Words of the plugin's image that are others in the copy which is loaded, by their offsets: so
    /// that nothing of it runs before the second filter is in place.
    pub disarmed: Vec<(u64, u64)>,
    /// What to run of it then, in numbers that are the loader's.
    pub constructors: [u64; 3],
    /// Whether the worker tries to break out instead of loading a plugin.
    pub probe: bool,
}
