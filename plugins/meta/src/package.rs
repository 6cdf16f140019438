//! `plugin.meta`: what a package directory promises about its plugins.
//!
//! The build driver writes it last and by rename, the host reads it first. Unknown fields
//! and formats are refused: a field that a host does not know may be a condition that it
//! would break.
//!
//! Absent on purpose: paths (a plugin's file lies beside its meta) and anything that
//! changes without the plugin changing, such as times.

use std::{
    collections::BTreeSet,
    fmt,
    os::fd::AsFd,
    path::{Component, Path},
    str::FromStr,
};

use hotmerge_abi::{ABI_MAJOR, ABI_MINOR, TableHeader};
use rustix::fs::{CWD, Mode, OFlags};
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::{
    Digest, FileName, Image, ImageError, PluginName, Trust,
    read::{ReadError, read_trusted},
};

/// The name of the file in a package directory.
pub const META_FILE: &str = "plugin.meta";

/// The format that this version writes and the newest it reads.
pub const FORMAT: u32 = 1;

/// Real files have a few hundred bytes per plugin. The most hostile known file of this size
/// takes 10 ms to refuse; without a limit this time would be unbounded.
pub const MAX_META_BYTES: u64 = 64 * 1024;

const HEADING: &str = "# Written by hotmerge's build driver; do not edit.\n";

/// The contents of a `plugin.meta`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// [`FORMAT`].
    pub format: u32,
    /// At least one plugin; names and files are unique.
    pub plugin: Vec<PluginMeta>,
}

/// What a package promises about one plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginMeta {
    /// The name in calls.
    pub name: PluginName,
    /// Version of the plugin; says nothing about whether its code changed.
    pub version: Version,
    /// The shared object, in the same directory.
    pub file: FileName,
    /// [`Image::digest`](crate::Image::digest) of the file.
    pub hash: Digest,
    /// Size of the normalised image in bytes; the file itself may be larger.
    pub size: u64,
    /// The contract that it was built with.
    pub abi: Abi,
    /// Target triple that it was built for.
    pub target: String,
    /// How the next version takes over its state, if any.
    #[serde(default, skip_serializing_if = "Handover::is_default")]
    pub handover: Handover,
    /// Plugins that must be active before this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requires>,
    /// The rights it requests. They grant nothing.
    #[serde(default, skip_serializing_if = "Wants::is_nothing")]
    pub wants: Wants,
}

/// Why an image is not the one that a `plugin.meta` promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PromiseError {
    /// Different code. May be temporary: a file is replaced before its meta.
    #[error("its hash is {found}, but `{META_FILE}` says {promised}; build and stage it again")]
    Hash {
        /// Of the image.
        found: Digest,
        /// In the meta.
        promised: Digest,
    },
    /// The hash is right, so the meta contradicts itself.
    #[error("its image has {found} bytes, but `{META_FILE}` says {promised}; build it again")]
    Size {
        /// Of the image, in bytes.
        found: u64,
        /// In the meta.
        promised: u64,
    },
    /// The hash is right, so the meta contradicts itself.
    #[error("it was built for ABI {found}, but `{META_FILE}` says {promised}; build it again")]
    Abi {
        /// Of the image.
        found: Abi,
        /// In the meta.
        promised: Abi,
    },
    /// Not a plugin at all.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl PluginMeta {
    /// Checks that `image` matches this entry. The driver checks before it publishes, the host
    /// before it loads.
    ///
    /// # Errors
    /// The first mismatch.
    pub fn check(&self, image: &Image) -> Result<(), PromiseError> {
        let (found, promised) = (image.digest(), self.hash);
        if found != promised {
            return Err(PromiseError::Hash { found, promised });
        }
        let (found, promised) = (image.len() as u64, self.size);
        if found != promised {
            return Err(PromiseError::Size { found, promised });
        }
        let (found, promised) = (Abi::from(&image.header()?), self.abi);
        if found != promised {
            return Err(PromiseError::Abi { found, promised });
        }
        Ok(())
    }

    /// Whether an instance of `other` can go on as one of this: the same code, which asks for
    /// the same. A version number or a file name makes no difference to it.
    pub fn runs_as(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.handover == other.handover
            && self.requires == other.requires
            && self.wants == other.wants
    }

    fn check_values(&self) -> Result<(), MetaError> {
        let wrong = |field, value: &str, rule| {
            Err(MetaError::Value {
                plugin: self.name.clone(),
                field,
                value: value.to_owned(),
                rule,
            })
        };
        let triple = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.target.is_empty() || self.target.len() > 64 || !self.target.bytes().all(triple) {
            return wrong("target", &self.target, "must be a target triple");
        }
        if i64::try_from(self.size).is_err() {
            return wrong("size", &self.size.to_string(), "must be a size in bytes");
        }
        for path in &self.wants.fs {
            let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
            let safe =
                Path::new(path).components().all(plain) && !path.chars().any(char::is_control);
            if !path.starts_with('/') || !safe {
                return wrong("wants.fs", path, "must be an absolute path without `..`");
            }
        }
        if self.requires.iter().any(|other| other.name == self.name) {
            return wrong("requires", self.name.as_str(), "must name another plugin");
        }
        Ok(())
    }
}

/// Another plugin that must be active first. Only such a plugin can be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requires {
    /// Its name.
    pub name: PluginName,
    /// The versions that will do.
    pub version: VersionReq,
    /// What a new version of it means for this plugin.
    #[serde(default, skip_serializing_if = "OnReplace::is_default")]
    pub on_replace: OnReplace,
}

/// What happens to a plugin when one that it requires is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReplace {
    /// Nothing: its calls go to the new version from then on.
    #[default]
    Rebind,
    /// It restarts, because it caches something from the old version.
    Reload,
}

impl OnReplace {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How the next version takes over a plugin's state. A plugin without `save` has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handover {
    /// While calls wait, so that nothing changes between `save` and the first call of the
    /// next version.
    #[default]
    Pause,
    /// While calls continue: their changes after `save` are lost.
    Live,
}

impl Handover {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The rights that a plugin requests. None by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wants {
    /// Absolute paths that it asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fs: Vec<String>,
    /// Whether it asks for the network.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub net: bool,
}

impl Wants {
    /// Whether it asks for nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// A version of the C contract, written `major.minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Abi {
    /// The binary layout.
    pub major: u16,
    /// The interface version.
    pub minor: u16,
}

impl Abi {
    /// What this version of hotmerge was built with.
    pub const CURRENT: Self = Self {
        major: ABI_MAJOR,
        minor: ABI_MINOR,
    };
}

impl From<&TableHeader> for Abi {
    fn from(header: &TableHeader) -> Self {
        Self {
            major: header.abi_major,
            minor: header.abi_minor,
        }
    }
}

/// A text that is not an ABI version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an ABI must be `major.minor`, such as `{}`", Abi::CURRENT)]
pub struct AbiSyntaxError;

impl FromStr for Abi {
    type Err = AbiSyntaxError;

    fn from_str(text: &str) -> Result<Self, AbiSyntaxError> {
        let number = |digits: &str| match digits.as_bytes() {
            // One spelling per version: no sign, no leading zero.
            [b'0'] => Some(0),
            [b'1'..=b'9', ..] => digits.parse().ok(),
            _ => None,
        };
        let (major, minor) = text.split_once('.').ok_or(AbiSyntaxError)?;
        match (number(major), number(minor)) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(AbiSyntaxError),
        }
    }
}

impl TryFrom<String> for Abi {
    type Error = AbiSyntaxError;

    fn try_from(text: String) -> Result<Self, AbiSyntaxError> {
        text.parse()
    }
}

impl From<Abi> for String {
    fn from(abi: Abi) -> Self {
        abi.to_string()
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why a `plugin.meta` was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// It could not be read as a regular file of moderate size.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Larger than [`MAX_META_BYTES`].
    #[error("`{META_FILE}` has {size} bytes; at most {MAX_META_BYTES} are accepted")]
    TooLarge {
        /// Size in bytes.
        size: u64,
    },
    /// Not UTF-8.
    #[error("`{META_FILE}` is not UTF-8 from byte {offset} on")]
    NotUtf8 {
        /// Where the first wrong byte is.
        offset: usize,
    },
    /// Nothing but blanks and comments.
    #[error("`{META_FILE}` is empty")]
    Empty,
    /// Written by a newer hotmerge, or not by hotmerge at all.
    #[error(
        "`{META_FILE}` has format {found}, which this hotmerge does not understand ({FORMAT}); {advice}"
    )]
    Format {
        /// The format it has.
        found: i64,
        /// What to do.
        advice: &'static str,
    },
    /// Not TOML, or not these tables.
    #[error("`{META_FILE}` line {line}: {reason}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// An invalid value.
    #[error("`{META_FILE}` gives plugin `{plugin}` the {field} {value:?}, which {rule}")]
    Value {
        /// Whose.
        plugin: PluginName,
        /// Which field.
        field: &'static str,
        /// The value.
        value: String,
        /// What it should be.
        rule: &'static str,
    },
    /// It names no plugin.
    #[error("`{META_FILE}` names no plugin")]
    NoPlugin,
    /// Two plugins of one name.
    #[error("`{META_FILE}` names the plugin `{0}` twice")]
    SameName(PluginName),
    /// Two plugins in one file.
    #[error("`{META_FILE}` gives the file `{0}` to two plugins")]
    SameFile(FileName),
}

impl Meta {
    /// A meta of the current format.
    ///
    /// # Errors
    /// No plugin, or two of one name or file.
    pub fn new(plugin: Vec<PluginMeta>) -> Result<Self, MetaError> {
        let mut meta = Self {
            format: FORMAT,
            plugin,
        };
        meta.check()?;
        meta.sort();
        Ok(meta)
    }

    /// Parses and checks the text of a `plugin.meta`.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub fn parse(text: &str) -> Result<Self, MetaError> {
        let size = text.len() as u64;
        if size > MAX_META_BYTES {
            return Err(MetaError::TooLarge { size });
        }
        check_format(text)?;
        let mut meta: Self = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        meta.check()?;
        meta.sort();
        Ok(meta)
    }

    /// Parses and checks the bytes of a `plugin.meta`.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MetaError> {
        let text = str::from_utf8(bytes).map_err(|error| MetaError::NotUtf8 {
            offset: error.valid_up_to(),
        })?;
        Self::parse(text)
    }

    /// Reads the `plugin.meta` of the package directory `dir`.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub fn read(dir: impl AsFd) -> Result<Self, MetaError> {
        Self::read_trusted(dir, &Trust::anybody())
    }

    /// As [`Meta::read`], but only what nobody else could have written.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub fn read_trusted(dir: impl AsFd, trust: &Trust) -> Result<Self, MetaError> {
        let (bytes, _) = read_trusted(dir, META_FILE, MAX_META_BYTES, trust)?;
        Self::from_bytes(&bytes)
    }

    /// Reads the `plugin.meta` of the package directory at `dir`.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub fn read_path(dir: &Path) -> Result<Self, MetaError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, dir, flags, Mode::empty())
            .map_err(|error| ReadError::from_open(dir, error))?;
        Self::read(dir)
    }

    /// The text of the file: plugins by name, always the same for the same contents.
    pub fn to_toml(&self) -> String {
        let mut sorted = self.clone();
        sorted.sort();
        let body = toml::to_string(&sorted)
            .expect("strings, fixed keys and sizes below 2^63 all exist in TOML");
        format!("{HEADING}{body}")
    }

    /// The plugin of a name.
    pub fn get(&self, name: &str) -> Option<&PluginMeta> {
        self.plugin.iter().find(|plugin| plugin.name == *name)
    }

    fn sort(&mut self) {
        self.plugin.sort_by(|a, b| a.name.cmp(&b.name));
    }

    pub(crate) fn check(&self) -> Result<(), MetaError> {
        if self.plugin.is_empty() {
            return Err(MetaError::NoPlugin);
        }
        let (mut names, mut files) = (BTreeSet::new(), BTreeSet::new());
        for plugin in &self.plugin {
            plugin.check_values()?;
            if !names.insert(&plugin.name) {
                return Err(MetaError::SameName(plugin.name.clone()));
            }
            if !files.insert(&plugin.file) {
                return Err(MetaError::SameFile(plugin.file.clone()));
            }
        }
        Ok(())
    }
}

/// Looks at the format alone, so that a newer format is named as such and not as a list of
/// unknown fields.
fn check_format(text: &str) -> Result<(), MetaError> {
    #[derive(Deserialize)]
    struct Probe {
        format: i64,
    }
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(blank) {
        return Err(MetaError::Empty);
    }
    let Probe { format } = toml::from_str(text).map_err(|error| syntax(text, &error))?;
    let advice = match format {
        1 => return Ok(()),
        2.. => "it is newer: upgrade the host",
        _ => "build the plugin again",
    };
    Err(MetaError::Format {
        found: format,
        advice,
    })
}

fn syntax(text: &str, error: &toml::de::Error) -> MetaError {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..start]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1;
    MetaError::Syntax {
        line,
        reason: one_line(error.message()),
    }
}

/// Some of toml's messages have a second line with what would be right, and some quote the
/// file, which must not reach a terminal as it is.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for char in message.chars() {
        match char {
            '\n' => line.push_str("; "),
            char if char.is_control() => line.extend(char.escape_default()),
            char => line.push(char),
        }
    }
    line
}
