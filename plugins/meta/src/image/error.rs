//! Why a file is not a plugin, one sentence each.

use hotmerge_abi::{ABI_MAJOR, ABI_MINOR, ENTRY_SYMBOL};

use crate::ReadError;

/// Why a file is not a plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// The magic number is missing.
    #[error("not an ELF file")]
    NotElf,
    /// The identification bytes name a class, byte order or version that does not exist.
    #[error("not an ELF file that this hotmerge understands: its {what} is {value}")]
    UnknownIdent {
        /// Which identification byte.
        what: &'static str,
        /// Its value.
        value: u8,
    },
    /// Something reaches beyond the end of the file.
    #[error("truncated: {what} ends at byte {end}, but the file has {len} bytes")]
    Truncated {
        /// Which part of the file.
        what: String,
        /// First byte after it; `u64::MAX` stands for anything larger.
        end: u64,
        /// Size of the file in bytes.
        len: u64,
    },
    /// An executable, an object file, a core.
    #[error("not a shared object: its ELF type is {kind}; plugins are built as `cdylib`")]
    NotShared {
        /// Name or number of the type.
        kind: String,
    },
    /// The headers contradict themselves or each other.
    #[error("malformed ELF: {0}")]
    Malformed(String),
    /// Nothing would be mapped.
    #[error("no loadable segment")]
    NoLoad,
    /// Nothing is exported under the contract's name.
    #[error(
        "not a hotmerge plugin: it exports no `{ENTRY_SYMBOL}`; \
         name the plugin type in `hotmerge_sdk::export_plugin!`"
    )]
    NoEntry,
    /// Something is exported under the name, but it is not a table.
    #[error("not a hotmerge plugin: `{ENTRY_SYMBOL}` {0}")]
    NotATable(&'static str),
}

/// Why there is no image of a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadImageError {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It could, but is not a plugin.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Why a host may not load a plugin of this ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AbiError {
    /// The binary layout is one that this host has left behind.
    #[error(
        "built for ABI {major}.{minor}, but this host speaks {ABI_MAJOR}.{ABI_MINOR}; \
         rebuild the plugin with the SDK of this host"
    )]
    Older {
        /// Of the plugin.
        major: u16,
        /// Of the plugin.
        minor: u16,
    },
    /// The plugin may use what this host does not have. A package manager may have upgraded both,
    /// and the host that runs is the one before.
    #[error(
        "built for ABI {major}.{minor}, which is newer than this host's \
         {ABI_MAJOR}.{ABI_MINOR}; upgrade and restart the host, or rebuild the plugin with an older SDK"
    )]
    Newer {
        /// Of the plugin.
        major: u16,
        /// Of the plugin.
        minor: u16,
    },
    /// Its functions are not where this host looks for them.
    #[error(
        "its table has {size} bytes and one of this ABI has {expected}; rebuild the plugin with the SDK"
    )]
    Size {
        /// Of the plugin's table, as it says itself.
        size: u32,
        /// Of every table of this ABI so far.
        expected: u32,
    },
}
