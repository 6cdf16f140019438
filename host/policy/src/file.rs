//! A plugin file as the dynamic loader sees it.

use std::collections::BTreeSet;

use object::{
    Endianness,
    elf::{self, FileHeader64, ProgramHeader64, Sym64},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _, Rela as _, Sym as _},
};
use serde::Serialize;

use crate::Objection;

/// Most entries of any table: far more than real plugins have.
const MOST: usize = 1 << 22;

/// Why a file cannot be read as the loader would.
#[derive(Debug, thiserror::Error)]
#[error("what the dynamic loader would read is not sound: {0}")]
pub struct FileError(&'static str);

/// A loadable segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// Where it lies in memory.
    pub address: u64,
    /// Its size in memory, in bytes.
    pub bytes: u64,
    /// `r`, `w` and `x`, or `-`.
    pub access: String,
}

/// What a file asks of the dynamic loader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct File {
    /// Its loadable segments.
    pub segments: Vec<Segment>,
    /// Libraries that it needs.
    pub needed: Vec<String>,
    /// Symbols that it imports.
    pub imports: BTreeSet<String>,
    /// What no plugin should have, whatever it imports.
    pub oddities: Vec<Objection>,
}

type Entries = Vec<(u64, u64)>;

struct Reader<'a> {
    data: &'a [u8],
    endian: Endianness,
    segments: &'a [ProgramHeader64<Endianness>],
    file: File,
}

impl File {
    /// Reads the bytes of a plugin's image.
    ///
    /// # Errors
    /// If the loader could not make sense of it either, or it is not a 64-bit file.
    pub fn read(data: &[u8]) -> Result<Self, FileError> {
        let header = FileHeader64::<Endianness>::parse(data)
            .map_err(|_| FileError("it is no 64-bit ELF file"))?;
        let endian = header
            .endian()
            .map_err(|_| FileError("its byte order is unknown"))?;
        let segments = header
            .program_headers(endian, data)
            .map_err(|_| FileError("its program headers lie outside of it"))?;
        let mut reader = Reader {
            data,
            endian,
            segments,
            file: Self::default(),
        };
        if header.e_type(endian) != elf::ET_DYN {
            reader.odd("file type", "only shared objects are plugins");
        }
        reader.segments();
        reader.dynamic()?;
        Ok(reader.file)
    }
}

impl Reader<'_> {
    fn odd(&mut self, subject: &str, rule: &str) {
        let objection = Objection {
            subject: subject.into(),
            rule: rule.into(),
        };
        if !self.file.oddities.contains(&objection) {
            self.file.oddities.push(objection);
        }
    }

    fn segments(&mut self) {
        let mut stack = None;
        for segment in self.segments {
            let flags = segment.p_flags(self.endian);
            let (writes, runs) = (flags.contains(elf::PF_W), flags.contains(elf::PF_X));
            match segment.p_type(self.endian) {
                elf::PT_LOAD => {
                    let sign = |has, sign| if has { sign } else { '-' };
                    let signs = [
                        sign(flags.contains(elf::PF_R), 'r'),
                        sign(writes, 'w'),
                        sign(runs, 'x'),
                    ];
                    self.file.segments.push(Segment {
                        address: segment.p_vaddr(self.endian),
                        bytes: segment.p_memsz(self.endian),
                        access: signs.iter().collect(),
                    });
                    if writes && runs {
                        self.odd("segment", "memory must not be writable and executable");
                    }
                }
                elf::PT_GNU_STACK => stack = Some(runs),
                _ => {}
            }
        }
        match stack {
            Some(false) => {}
            Some(true) => self.odd("GNU_STACK", "it would make the host's stack executable"),
            None => self.odd(
                "GNU_STACK",
                "without it the host's stack becomes executable",
            ),
        }
    }

    /// File contents at an address, as far as its segment has any.
    fn at(&self, address: u64) -> Option<&[u8]> {
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

    fn table<T: object::Pod>(&self, address: u64, bytes: u64) -> Result<&[T], FileError> {
        let wrong = || FileError("a table lies outside of what is loaded");
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

    fn dynamic(&mut self) -> Result<(), FileError> {
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.p_type(self.endian) == elf::PT_DYNAMIC)
            .ok_or(FileError("it has no dynamic segment"))?;
        let (address, bytes) = (segment.p_vaddr(self.endian), segment.p_filesz(self.endian));
        let endian = self.endian;
        let entries: Entries = self
            .table::<elf::Dyn64<Endianness>>(address, bytes)?
            .iter()
            .map(|entry| (entry.tag(endian).0 as u64, entry.val(endian)))
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        // Of several entries with one tag the loader keeps the last.
        let value = |wanted: elf::DynamicTag| {
            let wanted = wanted.0 as u64;
            let mut found = entries.iter().rev().filter(|(tag, _)| *tag == wanted);
            found.next().map(|(_, value)| *value)
        };
        let strings = value(elf::DT_STRTAB).ok_or(FileError("it has no string table"))?;
        let symbols = value(elf::DT_SYMTAB).ok_or(FileError("it has no symbol table"))?;
        self.forbidden(&entries);
        for (_, name) in entries
            .iter()
            .filter(|(tag, _)| *tag == elf::DT_NEEDED.0 as u64)
        {
            let name = self.string(strings, *name)?;
            self.file.needed.push(name);
        }
        for (table, size) in [
            (elf::DT_RELA, elf::DT_RELASZ),
            (elf::DT_JMPREL, elf::DT_PLTRELSZ),
        ] {
            if let (Some(table), Some(size)) = (value(table), value(size)) {
                self.relocations(table, size, symbols, strings)?;
            }
        }
        if value(elf::DT_REL).is_some() {
            self.odd("DT_REL", "64-bit files have relocations with addends");
        }
        if let (Some(table), Some(size)) = (value(elf::DT_RELR), value(elf::DT_RELRSZ)) {
            self.relative(table, size)?;
        }
        Ok(())
    }

    fn forbidden(&mut self, entries: &Entries) {
        for (tag, value) in entries {
            let name = match *tag {
                15 => "DT_RPATH",
                29 => "DT_RUNPATH",
                0x6fff_fefc => "DT_AUDIT",
                0x6fff_fefb => "DT_DEPAUDIT",
                0x6fff_fefa => "DT_CONFIG",
                0x7fff_ffff => "DT_FILTER",
                0x7fff_fffd => "DT_AUXILIARY",
                22 => "DT_TEXTREL",
                // DF_TEXTREL
                30 if value & 4 != 0 => "DT_TEXTREL",
                _ => continue,
            };
            let rule = if name == "DT_TEXTREL" {
                "the loader would write to code"
            } else {
                "it would let the loader look for other files"
            };
            self.odd(name, rule);
        }
    }

    fn string(&self, table: u64, offset: u64) -> Result<String, FileError> {
        let wrong = FileError("a name lies outside of what is loaded");
        let Some(bytes) = table
            .checked_add(offset)
            .and_then(|address| self.at(address))
        else {
            return Err(wrong);
        };
        let Some(end) = bytes.iter().take(4096).position(|byte| *byte == 0) else {
            return Err(wrong);
        };
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn relocations(
        &mut self,
        table: u64,
        size: u64,
        symbols: u64,
        strings: u64,
    ) -> Result<(), FileError> {
        let endian = self.endian;
        let entries: Vec<_> = self
            .table::<elf::Rela64<Endianness>>(table, size)?
            .iter()
            .map(|entry| {
                let kind = entry.r_type(endian, false);
                (entry.r_offset(endian), kind.0, entry.r_sym(endian, false))
            })
            .collect();
        let mut seen = BTreeSet::new();
        for (offset, kind, symbol) in entries {
            self.target(offset);
            // R_X86_64_IRELATIVE, R_AARCH64_IRELATIVE
            if kind == 37 || kind == 1032 {
                self.odd("IFUNC", "code would run while the loader relocates");
            }
            if symbol != 0 && seen.insert(symbol) {
                self.symbol(symbol, symbols, strings)?;
            }
        }
        Ok(())
    }

    fn symbol(&mut self, index: u32, symbols: u64, strings: u64) -> Result<(), FileError> {
        let size = size_of::<Sym64<Endianness>>() as u64;
        let address = symbols
            .checked_add(u64::from(index) * size)
            .ok_or(FileError("a symbol lies outside of what is loaded"))?;
        let symbol = self
            .table::<Sym64<Endianness>>(address, size)?
            .first()
            .copied()
            .ok_or(FileError("a symbol lies outside of what is loaded"))?;
        let name = self.string(strings, symbol.st_name(self.endian).into())?;
        // STT_GNU_IFUNC
        if symbol.st_info().0 & 0xf == 10 {
            self.odd("IFUNC", "code would run while the loader relocates");
        }
        let is_undefined = symbol.st_shndx(self.endian) == elf::SHN_UNDEF;
        if is_undefined {
            self.file.imports.insert(name);
        }
        Ok(())
    }

    fn relative(&mut self, table: u64, size: u64) -> Result<(), FileError> {
        let endian = self.endian;
        let words: Vec<u64> = self
            .table::<object::U64<Endianness>>(table, size)?
            .iter()
            .map(|word| word.get(endian))
            .collect();
        let mut next = 0_u64;
        for word in words {
            if word & 1 == 0 {
                self.target(word);
                next = word.wrapping_add(8);
            } else {
                for bit in 1..64 {
                    if word >> bit & 1 == 1 {
                        self.target(next.wrapping_add(8 * (bit - 1)));
                    }
                }
                next = next.wrapping_add(8 * 63);
            }
        }
        Ok(())
    }

    /// Where a relocation writes.
    fn target(&mut self, address: u64) {
        let writable = self.segments.iter().any(|segment| {
            let start = segment.p_vaddr(self.endian);
            segment.p_type(self.endian) == elf::PT_LOAD
                && segment.p_flags(self.endian).contains(elf::PF_W)
                && address >= start
                && address - start < segment.p_memsz(self.endian)
        });
        if !writable {
            self.odd("relocation", "it would write to memory that is read-only");
        }
    }
}
