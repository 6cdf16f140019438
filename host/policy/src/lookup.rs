//! Looks a name up in the file's own hash tables, as the dynamic loader does: what it finds
//! there it takes, however many symbols the file is said to have.
//!
//! Invariant: whatever this reads lies where no relocation writes, so that the loader reads the same.

use std::cell::Cell;

use object::{
    Endianness, U32,
    elf::{self, Sym64},
    read::elf::Sym as _,
};

use crate::{FileError, reader::Reader};

/// How many entries of chains are examined for one file; real ones have a few per name.
const MOST_STEPS: u32 = 1 << 20;

const NOT_FIXED: FileError =
    FileError("its hash table leads outside the loaded segments, or to writable memory");

/// What the loader looks names up in.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) symbols: u64,
    pub(crate) strings: u64,
    pub(crate) gnu_hash: Option<u64>,
    pub(crate) hash: Option<u64>,
    pub(crate) steps: Cell<u32>,
}

impl Tables {
    fn step(&self) -> Result<(), FileError> {
        let steps = self.steps.get() + 1;
        self.steps.set(steps);
        match steps > MOST_STEPS {
            true => Err(FileError("the chains of its hash table do not end")),
            false => Ok(()),
        }
    }

    /// Whether the file itself defines a name by code that the loader would run.
    ///
    /// # Errors
    /// If the loader would read what may be anything.
    pub(crate) fn runs_code(&self, reader: &Reader<'_>, name: &[u8]) -> Result<bool, FileError> {
        match (self.gnu_hash, self.hash) {
            (Some(table), _) => self.by_gnu_hash(reader, table, name),
            (None, Some(table)) => self.by_hash(reader, table, name),
            (None, None) => Ok(false),
        }
    }

    fn by_gnu_hash(&self, reader: &Reader<'_>, table: u64, name: &[u8]) -> Result<bool, FileError> {
        let [count, base, filters, _] = [0, 1, 2, 3].map(|number| word(reader, table, number));
        let (count, base, filters) = (count?, base?, filters?);
        let hash = elf::gnu_hash(name);
        let bucket = hash.checked_rem(count).ok_or(NOT_FIXED)?;
        // The filter only says early that there is nothing.
        let buckets = after(table, 16 + 8 * u64::from(filters))?;
        let mut symbol = u64::from(word(reader, buckets, bucket.into())?);
        if symbol == 0 {
            return Ok(false);
        }
        let chains = after(buckets, 4 * u64::from(count))?;
        loop {
            self.step()?;
            let number = symbol.checked_sub(base.into()).ok_or(NOT_FIXED)?;
            let entry = word(reader, chains, number)?;
            if (entry ^ hash) >> 1 == 0 && self.is_code(reader, symbol, name)? {
                return Ok(true);
            }
            if entry & 1 == 1 {
                return Ok(false);
            }
            symbol += 1;
        }
    }

    fn by_hash(&self, reader: &Reader<'_>, table: u64, name: &[u8]) -> Result<bool, FileError> {
        let count = word(reader, table, 0)?;
        let bucket = elf::hash(name).checked_rem(count).ok_or(NOT_FIXED)?;
        let buckets = after(table, 8)?;
        let chains = after(buckets, 4 * u64::from(count))?;
        let mut symbol = word(reader, buckets, bucket.into())?;
        while symbol != 0 {
            self.step()?;
            if self.is_code(reader, symbol.into(), name)? {
                return Ok(true);
            }
            symbol = word(reader, chains, symbol.into())?;
        }
        Ok(false)
    }

    /// Whether a symbol has this name and is found by running code.
    fn is_code(&self, reader: &Reader<'_>, symbol: u64, name: &[u8]) -> Result<bool, FileError> {
        let symbol = symbol_at(self.symbols, symbol)
            .and_then(|at| reader.fixed::<Sym64<Endianness>>(at))
            .ok_or(NOT_FIXED)?;
        if symbol.st_shndx(reader.endian) == elf::SHN_UNDEF
            || symbol.st_type() != elf::STT_GNU_IFUNC
        {
            return Ok(false);
        }
        let at = after(self.strings, symbol.st_name(reader.endian).into())?;
        let found = reader.name(at)?;
        // What may become another name is none that can be relied on.
        Ok(found == name || reader.has(at, elf::PF_W))
    }
}

fn after(address: u64, bytes: u64) -> Result<u64, FileError> {
    address.checked_add(bytes).ok_or(NOT_FIXED)
}

fn word(reader: &Reader<'_>, table: u64, number: u64) -> Result<u32, FileError> {
    let at = number.checked_mul(4).map(|skip| after(table, skip));
    let words = reader.fixed::<U32<Endianness>>(at.ok_or(NOT_FIXED)??);
    Ok(words.ok_or(NOT_FIXED)?.get(reader.endian))
}

/// Where the entry of a symbol table lies.
pub(crate) fn symbol_at(table: u64, index: u64) -> Option<u64> {
    let skip = index.checked_mul(size_of::<Sym64<Endianness>>() as u64)?;
    table.checked_add(skip)
}
