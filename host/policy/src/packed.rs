//! Packed relocations, and the mark that the C library's loader demands with them.
//!
//! A loader that does not know `DT_RELR` would leave these relocations undone without a word. So glibc has a
//! version that stands for them, which files require, and its own loader refuses files that require other
//! versions of it and not this one. Linkers write the mark only if they know of it.

use object::{
    Endianness,
    elf::{self, Vernaux, Verneed},
};

use crate::{FileError, dynamic::Dynamic, reader::Reader};

const MARK: &[u8] = b"GLIBC_ABI_DT_RELR";

/// How the C library's name begins.
const C_LIBRARY: &[u8] = b"libc.so.";

/// The most versions that are examined: far more than real plugins require.
const MOST: usize = 1 << 16;

impl Reader<'_> {
    /// Objects if packed relocations lack their mark.
    pub(crate) fn packed_without_mark(&mut self, dynamic: &Dynamic) -> Result<(), FileError> {
        let versions = self.versions_of_libc(dynamic)?;
        if !versions.is_empty() && !versions.contains(&MARK) {
            self.odd(
                "DT_RELR",
                "the loader takes packed relocations only from a file that requires the version \
                 `GLIBC_ABI_DT_RELR`: link with `-z pack-relative-relocs` by a linker that writes it, \
                 or leave them unpacked",
            );
        }
        Ok(())
    }

    fn versions_of_libc(&self, dynamic: &Dynamic) -> Result<Vec<&[u8]>, FileError> {
        let mut versions = Vec::new();
        let Some(mut at) = dynamic.value(elf::DT_VERNEED) else {
            return Ok(versions);
        };
        for _ in 0..MOST {
            let needed: &Verneed<Endianness> = self.entry(at)?;
            let library = u64::from(needed.vn_file.get(self.endian));
            if self.name(dynamic.name_at(library))?.starts_with(C_LIBRARY) {
                let first = at.saturating_add(needed.vn_aux.get(self.endian).into());
                self.versions_from(dynamic, first, &mut versions)?;
            }
            match needed.vn_next.get(self.endian) {
                0 => break,
                next => at = at.saturating_add(next.into()),
            }
        }
        Ok(versions)
    }

    fn versions_from<'a>(
        &'a self,
        dynamic: &Dynamic,
        mut at: u64,
        versions: &mut Vec<&'a [u8]>,
    ) -> Result<(), FileError> {
        while versions.len() < MOST {
            let version: &Vernaux<Endianness> = self.entry(at)?;
            let name = u64::from(version.vna_name.get(self.endian));
            versions.push(self.name(dynamic.name_at(name))?);
            match version.vna_next.get(self.endian) {
                0 => break,
                next => at = at.saturating_add(next.into()),
            }
        }
        Ok(())
    }

    fn entry<T: object::Pod>(&self, at: u64) -> Result<&T, FileError> {
        let table = self.table::<T>(at, size_of::<T>() as u64)?;
        table
            .first()
            .ok_or(FileError("a table lies outside the loaded segments"))
    }
}
