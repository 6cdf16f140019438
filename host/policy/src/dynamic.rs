//! The dynamic segment: libraries, tables, relocations and the symbols that they name.

use std::{collections::BTreeSet, ops::Range};

use hotmerge_abi::ENTRY_SYMBOL;
use object::{
    Endianness, U64,
    elf::{self, Dyn64, DynamicTag, Rela64, RelocationType, Sym64},
    read::elf::{Dyn as _, ProgramHeader as _, Rela as _, Sym as _},
};

use crate::{
    FileError, LIBRARIES,
    lookup::{Tables, symbol_at},
    reader::Reader,
};

const MUST_BE_FIXED: &str = "the loader's tables must lie in memory that is read-only";

/// Relocations that run code, of all machines that plugins are built for.
const IRELATIVE: [RelocationType; 3] = [
    elf::R_X86_64_IRELATIVE,
    elf::R_AARCH64_IRELATIVE,
    elf::R_RISCV_IRELATIVE,
];

/// Relocations in the formats of Android's loader, which other loaders ignore.
const DT_ANDROID_REL: DynamicTag = DynamicTag(0x6000_000f);
const DT_ANDROID_RELA: DynamicTag = DynamicTag(0x6000_0011);
const DT_ANDROID_RELR: DynamicTag = DynamicTag(0x6fff_e000);

/// The entries up to the end mark, and their addresses.
pub(crate) struct Dynamic {
    entries: Vec<(DynamicTag, u64)>,
    place: Range<u64>,
    symbols: u64,
    strings: u64,
    tables: Tables,
}

impl Dynamic {
    /// Of several entries with one tag the loader keeps the last.
    pub(crate) fn value(&self, wanted: DynamicTag) -> Option<u64> {
        let mut found = self.entries.iter().rev().filter(|(tag, _)| *tag == wanted);
        found.next().map(|(_, value)| *value)
    }

    /// The address of a name in the string table.
    pub(crate) fn name_at(&self, offset: u64) -> u64 {
        self.strings.saturating_add(offset)
    }
}

impl Reader<'_> {
    pub(crate) fn dynamic(&mut self) -> Result<(), FileError> {
        let dynamic = self.entries()?;
        self.forbidden(&dynamic);
        self.misplaced(&dynamic);
        for (tag, name) in &dynamic.entries {
            if *tag == elf::DT_NEEDED {
                let name = self.string(dynamic.strings, *name)?;
                self.file.needed.push(name);
            }
        }
        if let Some(name) = dynamic.value(elf::DT_SONAME) {
            let name = self.string(dynamic.strings, name)?;
            if LIBRARIES.contains(&&*name) {
                self.odd("DT_SONAME", "it would be taken for a library of the system");
            }
        }
        // The host looks for it.
        self.looked_up(&dynamic, ENTRY_SYMBOL.as_bytes());
        for (table, size) in [
            (elf::DT_RELA, elf::DT_RELASZ),
            (elf::DT_JMPREL, elf::DT_PLTRELSZ),
        ] {
            if let Some(table) = dynamic.value(table) {
                self.relocations(&dynamic, table, size_of_table(dynamic.value(size))?)?;
            }
        }
        if let Some(table) = dynamic.value(elf::DT_RELR) {
            let size = size_of_table(dynamic.value(elf::DT_RELRSZ))?;
            self.relative(&dynamic, table, size)?;
            self.packed_without_mark(&dynamic)?;
        }
        Ok(())
    }

    fn entries(&self) -> Result<Dynamic, FileError> {
        let mut all = self.segments.iter();
        let segment = all
            .find(|segment| segment.p_type(self.endian) == elf::PT_DYNAMIC)
            .ok_or(FileError("it has no dynamic segment"))?;
        let (address, bytes) = (segment.p_vaddr(self.endian), segment.p_filesz(self.endian));
        let all = self.table::<Dyn64<Endianness>>(address, bytes)?;
        let mut dynamic = Dynamic {
            entries: Vec::new(),
            place: address..address.saturating_add(bytes),
            symbols: 0,
            strings: 0,
            tables: Tables::default(),
        };
        for entry in all {
            let tag = entry.tag(self.endian);
            if tag == elf::DT_NULL {
                let strings = dynamic.value(elf::DT_STRTAB);
                dynamic.strings = strings.ok_or(FileError("it has no string table"))?;
                let symbols = dynamic.value(elf::DT_SYMTAB);
                dynamic.symbols = symbols.ok_or(FileError("it has no symbol table"))?;
                dynamic.tables = Tables {
                    symbols: dynamic.symbols,
                    strings: dynamic.strings,
                    gnu_hash: dynamic.value(elf::DT_GNU_HASH),
                    hash: dynamic.value(elf::DT_HASH),
                    ..Tables::default()
                };
                return Ok(dynamic);
            }
            dynamic.entries.push((tag, entry.val(self.endian)));
        }
        // The loader does not know how long the segment is, and would go on.
        Err(FileError("its dynamic segment has no end mark"))
    }

    fn forbidden(&mut self, dynamic: &Dynamic) {
        const FILES: &str = "it would let the loader look for other files";
        const CODE: &str = "the loader would write to code";
        // `DF_1_ORIGIN` has no effect: no path may contain `$ORIGIN`. `DF_1_NODELETE` is judged by where the
        // plugin is to run.
        const HARMLESS: u64 = elf::DF_1_NOW.0 | elf::DF_1_ORIGIN.0 | elf::DF_1_NODELETE.0;
        const ENTRIES: &str = "the loader knows entries of one kind and size only";
        for (tag, value) in &dynamic.entries {
            let (name, rule) = match *tag {
                elf::DT_RPATH => ("DT_RPATH", FILES),
                elf::DT_RUNPATH => ("DT_RUNPATH", FILES),
                elf::DT_AUDIT => ("DT_AUDIT", FILES),
                elf::DT_DEPAUDIT => ("DT_DEPAUDIT", FILES),
                elf::DT_CONFIG => ("DT_CONFIG", FILES),
                elf::DT_FILTER => ("DT_FILTER", FILES),
                elf::DT_AUXILIARY => ("DT_AUXILIARY", FILES),
                elf::DT_TEXTREL => ("DT_TEXTREL", CODE),
                elf::DT_FLAGS if value & elf::DF_TEXTREL.0 != 0 => ("DT_TEXTREL", CODE),
                elf::DT_REL => ("DT_REL", "64-bit files have relocations with addends"),
                // The loader ends the process over each of these.
                elf::DT_PLTREL if *value != elf::DT_RELA.0 as u64 => ("DT_PLTREL", ENTRIES),
                elf::DT_RELAENT if *value != entry_bytes::<Rela64<Endianness>>() => {
                    ("DT_RELAENT", ENTRIES)
                }
                elf::DT_SYMENT if *value != entry_bytes::<Sym64<Endianness>>() => {
                    ("DT_SYMENT", ENTRIES)
                }
                DT_ANDROID_REL | DT_ANDROID_RELA | DT_ANDROID_RELR => {
                    ("packed relocations", "the loader would not apply them")
                }
                elf::DT_FLAGS_1 if value & !HARMLESS != 0 => (
                    "DT_FLAGS_1",
                    "it would take precedence over others, or be searched for elsewhere",
                ),
                elf::DT_FLAGS_1 if value & elf::DF_1_NODELETE.0 != 0 => {
                    self.file.stays_loaded = true;
                    continue;
                }
                _ => continue,
            };
            self.odd(name, rule);
        }
    }

    /// Checks that an address lies in code, or where nothing writes before the loader reads it.
    fn misplaced(&mut self, dynamic: &Dynamic) {
        for (tag, name) in [(elf::DT_INIT, "DT_INIT"), (elf::DT_FINI, "DT_FINI")] {
            let outside = |address: &u64| !self.has(*address, elf::PF_X);
            if dynamic.value(tag).filter(outside).is_some() {
                self.odd(name, "it lies outside of the file's code");
            }
        }
        for (tag, name) in [
            (elf::DT_STRTAB, "DT_STRTAB"),
            (elf::DT_SYMTAB, "DT_SYMTAB"),
            (elf::DT_GNU_HASH, "DT_GNU_HASH"),
            (elf::DT_HASH, "DT_HASH"),
            (elf::DT_RELA, "DT_RELA"),
            (elf::DT_JMPREL, "DT_JMPREL"),
            (elf::DT_RELR, "DT_RELR"),
        ] {
            let writable = |address: &u64| self.has(*address, elf::PF_W);
            if dynamic.value(tag).filter(writable).is_some() {
                self.odd(name, MUST_BE_FIXED);
            }
        }
    }

    fn relocations(&mut self, dynamic: &Dynamic, table: u64, size: u64) -> Result<(), FileError> {
        let endian = self.endian;
        let mut seen = BTreeSet::new();
        for entry in self.table::<Rela64<Endianness>>(table, size)? {
            self.target(dynamic, entry.r_offset(endian));
            if IRELATIVE.contains(&entry.r_type(endian, false)) {
                self.odd("IFUNC", "code would run while the loader relocates");
            }
            let symbol = entry.r_sym(endian, false);
            if symbol != 0 && seen.insert(symbol) {
                self.symbol(dynamic, symbol)?;
            }
        }
        Ok(())
    }

    fn symbol(&mut self, dynamic: &Dynamic, index: u32) -> Result<(), FileError> {
        let at = symbol_at(dynamic.symbols, index.into())
            .ok_or(FileError("a symbol lies outside the loaded segments"))?;
        if self.has(at, elf::PF_W) {
            self.odd("DT_SYMTAB", MUST_BE_FIXED);
        }
        let [symbol] = self.table::<Sym64<Endianness>>(at, entry_bytes::<Sym64<Endianness>>())?
        else {
            return Err(FileError("a symbol lies outside the loaded segments"));
        };
        let offset = u64::from(symbol.st_name(self.endian));
        let name = self.string(dynamic.strings, offset)?;
        if symbol.st_shndx(self.endian) == elf::SHN_UNDEF {
            // Linkers copy the type of the definition they found; the loader looks it up again, also
            // in this file.
            let raw = self.name(dynamic.strings.saturating_add(offset))?;
            self.looked_up(dynamic, raw);
            self.file.imports.insert(name);
        } else if symbol.st_type() == elf::STT_GNU_IFUNC {
            self.odd("IFUNC", "code would run while the loader relocates");
        }
        Ok(())
    }

    /// Checks what the loader finds in this file under a name.
    fn looked_up(&mut self, dynamic: &Dynamic, name: &[u8]) {
        match dynamic.tables.runs_code(self, name) {
            Ok(false) => {}
            Ok(true) => self.odd("IFUNC", "code would run while the loader relocates"),
            Err(FileError(rule)) => self.odd("DT_HASH", rule),
        }
    }

    /// Packed relocations without symbols: an address, then words with one bit per address.
    fn relative(&mut self, dynamic: &Dynamic, table: u64, size: u64) -> Result<(), FileError> {
        let mut next = 0_u64;
        for word in self.table::<U64<Endianness>>(table, size)? {
            let word = word.get(self.endian);
            if word & 1 == 0 {
                self.target(dynamic, word);
                next = word.wrapping_add(8);
            } else {
                for bit in (1..64).filter(|bit| word >> bit & 1 == 1) {
                    self.target(dynamic, next.wrapping_add(8 * (bit - 1)));
                }
                next = next.wrapping_add(8 * 63);
            }
        }
        Ok(())
    }

    /// Checks the target of a relocation.
    fn target(&mut self, dynamic: &Dynamic, address: u64) {
        if !self.has(address, elf::PF_W) {
            self.odd("relocation", "it would write to memory that is read-only");
        }
        if dynamic.place.contains(&address) {
            self.odd("relocation", "it would change what the loader reads");
        }
    }
}

/// Size of an entry of a table, in bytes.
const fn entry_bytes<T>() -> u64 {
    size_of::<T>() as u64
}

fn size_of_table(size: Option<u64>) -> Result<u64, FileError> {
    size.ok_or(FileError("a table has no size"))
}
