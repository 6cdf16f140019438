//! The normalised image of a plugin file: what the dynamic loader maps, and nothing else.
//!
//! Package managers rewrite a plugin after it was built: they strip it, split its debug
//! information off, change its build-id. None of that changes what runs. The image keeps
//! the ELF header, the program headers and the file contents of the loadable segments;
//! every other byte is zero, and the file ends where the last kept byte ends. So are the
//! header's fields about sections, and the build-id's bytes.
//!
//! Invariant: the identity of a plugin is the SHA-256 of its image, and a host loads the
//! image, not the file. Bytes outside the hash therefore never reach memory.
//!
//! Absent on purpose: reading section headers, and judging what the code imports or does.

mod elf;
mod entry;
mod error;
mod machine;

pub use error::{AbiError, ImageError, ReadImageError};
pub use machine::Machine;

pub use hotmerge_abi::{C_HEADER, ENTRY_SYMBOL};
use std::{os::fd::AsFd, path::Path};

use hotmerge_abi::{self as abi, TableHeader};

use crate::{Digest, FileStamp, Trust, read};

/// The ELF header and the program headers of real plugins lie in the first page.
const HEAD_BYTES: usize = 4096;

/// A plugin's normalised image with its hash.
#[derive(Clone)]
pub struct Image {
    bytes: Vec<u8>,
    digest: Digest,
    machine: Machine,
}

impl Image {
    /// Turns the contents of a plugin file into its image, in place, and hashes it.
    ///
    /// # Errors
    /// If the bytes are not a loadable shared object; one sentence gives the reason.
    pub fn normalise(mut file: Vec<u8>) -> Result<Self, ImageError> {
        let layout = elf::Layout::of(&file)?;
        layout.apply(&mut file);
        Ok(Self {
            digest: Digest::of(&file),
            machine: layout.machine,
            bytes: file,
        })
    }

    /// Reads the image of the plugin file `name` of the directory `dir`, and no more of the
    /// file than the image is made of: debug information is neither read nor counted.
    ///
    /// The stamp is the file's. `limit_bytes` is for the image.
    ///
    /// # Errors
    /// What [`read_regular`](crate::read_regular) and [`Image::normalise`] refuse.
    pub fn read(
        dir: impl AsFd,
        name: impl AsRef<Path>,
        limit_bytes: u64,
    ) -> Result<(Self, FileStamp), ReadImageError> {
        let extent = |head: &[u8], len| -> Result<u64, ReadImageError> {
            Ok(elf::extent(head, len)?.unwrap_or(len))
        };
        let (bytes, stamp) = read::read_part(
            dir.as_fd(),
            name.as_ref(),
            limit_bytes,
            HEAD_BYTES,
            &Trust::anybody(),
            extent,
        )?;
        Ok((Self::normalise(bytes)?, stamp))
    }

    /// The identity of the plugin: the SHA-256 of [`Image::bytes`].
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What a host loads.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What a host loads.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Size of the image in bytes; not the size of the file it was made from.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never true: an image has at least an ELF header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What the code was built for.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// The header of the plugin's table, found the way the dynamic loader finds symbols and
    /// read from the file's contents in the file's byte order.
    ///
    /// # Errors
    /// [`ImageError::NoEntry`] if nothing is exported under the contract's name, others if
    /// what is exported is not a plugin's table.
    pub fn header(&self) -> Result<TableHeader, ImageError> {
        entry::header(&self.bytes)
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("len", &self.bytes.len())
            .field("digest", &self.digest)
            .field("machine", &self.machine)
            .finish()
    }
}

/// Whether a host built with this version of the contract may load a plugin with this header.
///
/// # Errors
/// Another major, or a newer minor; says both versions and what to do. A table of another size.
pub fn check_abi(header: &TableHeader) -> Result<(), AbiError> {
    let (major, minor) = (header.abi_major, header.abi_minor);
    if major < abi::ABI_MAJOR {
        return Err(AbiError::Older { major, minor });
    }
    if (major, minor) > (abi::ABI_MAJOR, abi::ABI_MINOR) {
        return Err(AbiError::Newer { major, minor });
    }
    let (size, expected) = (header.size, TableHeader::table_bytes(minor));
    if size != expected {
        return Err(AbiError::Size { size, expected });
    }
    Ok(())
}
