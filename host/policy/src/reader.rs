//! Access to a file's contents by the addresses that they will have in memory.

use object::{
    Endianness, Pod,
    elf::{self, ProgramFlags, ProgramHeader64},
    read::elf::ProgramHeader as _,
};

use crate::{File, FileError, Objection};

/// Maximum number of entries per table: far more than real plugins have.
const MOST: usize = 1 << 22;

/// A file being read, and the findings so far.
pub(crate) struct Reader<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) endian: Endianness,
    pub(crate) segments: &'a [ProgramHeader64<Endianness>],
    pub(crate) file: File,
}

impl<'a> Reader<'a> {
    /// Records a forbidden property, once.
    pub(crate) fn odd(&mut self, subject: &str, rule: &str) {
        let objection = Objection::fatal(subject, rule);
        if !self.file.oddities.contains(&objection) {
            self.file.oddities.push(objection);
        }
    }

    /// File contents at an address, as far as its segment has any.
    fn at(&self, address: u64) -> Option<&'a [u8]> {
        self.segments.iter().find_map(|segment| {
            if segment.p_type(self.endian) != elf::PT_LOAD {
                return None;
            }
            let skip = address.checked_sub(segment.p_vaddr(self.endian))?;
            let (offset, size) = segment.file_range(self.endian);
            (skip < size).then_some(())?;
            let (from, to) = (offset.checked_add(skip)?, offset.checked_add(size)?);
            self.data
                .get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
        })
    }

    /// Entries at an address.
    pub(crate) fn table<T: Pod>(&self, address: u64, bytes: u64) -> Result<&'a [T], FileError> {
        let wrong = || FileError("a table lies outside the loaded segments");
        let count = usize::try_from(bytes).map_err(|_| wrong())? / size_of::<T>();
        if count > MOST {
            return Err(FileError("a table is far too long"));
        }
        if count == 0 {
            return Ok(&[]);
        }
        let data = self.at(address).ok_or_else(wrong)?;
        let (table, _) = object::slice_from_bytes(data, count).map_err(|()| wrong())?;
        Ok(table)
    }

    /// What lies at an address, if it does so in memory that nothing writes.
    pub(crate) fn fixed<T: Pod>(&self, address: u64) -> Option<&'a T> {
        if self.has(address, elf::PF_W) {
            return None;
        }
        let (found, _) = object::from_bytes(self.at(address)?).ok()?;
        Some(found)
    }

    /// The name at an address.
    pub(crate) fn name(&self, address: u64) -> Result<&'a [u8], FileError> {
        let bytes = self.at(address).unwrap_or_default();
        let end = bytes.iter().take(4096).position(|byte| *byte == 0);
        end.map(|end| &bytes[..end])
            .ok_or(FileError("a name lies outside the loaded segments"))
    }

    /// A name of the string table at an address.
    pub(crate) fn string(&self, table: u64, offset: u64) -> Result<String, FileError> {
        let name = self.name(table.saturating_add(offset))?;
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// Whether an address lies in a loaded segment with this access.
    pub(crate) fn has(&self, address: u64, access: ProgramFlags) -> bool {
        self.segments.iter().any(|segment| {
            let start = segment.p_vaddr(self.endian);
            segment.p_type(self.endian) == elf::PT_LOAD
                && segment.p_flags(self.endian).contains(access)
                && address >= start
                && address - start < segment.p_memsz(self.endian)
        })
    }
}
