//! The plugin's table, found in the file through what the dynamic loader reads: the dynamic
//! segment, its symbol table and the hash table that says how long that is.
//!
//! Addresses are translated through the loadable segments, as they will lie in memory.

use hotmerge_abi::{ENTRY_SYMBOL, MAGIC, TableHeader};
use object::{
    Endian as _, Endianness, StringTable,
    elf::{self, FileHeader32, FileHeader64},
    read::elf::{Dyn, FileHeader, GnuHashTable, HashTable, Sym},
};

use super::{
    ImageError,
    elf::{Object, class, malformed},
};

/// Size of [`TableHeader`] in every byte order and word size.
const HEADER_BYTES: u64 = size_of::<TableHeader>() as u64;

pub(super) fn header(image: &[u8]) -> Result<TableHeader, ImageError> {
    match class(image)? {
        elf::ELFCLASS32 => read::<FileHeader32<Endianness>>(image),
        _ => read::<FileHeader64<Endianness>>(image),
    }
}

fn read<Elf: FileHeader<Endian = Endianness>>(image: &[u8]) -> Result<TableHeader, ImageError> {
    let object = Object::<Elf>::parse(image, image.len() as u64)?;
    let address = Dynamic::of(&object)?.entry()?;
    let bytes = object
        .at(address)
        .and_then(|bytes| bytes.first_chunk::<{ HEADER_BYTES as usize }>())
        .ok_or(ImageError::NotATable("has no contents in the file"))?;
    let (magic, rest) = bytes.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(ImageError::NotATable(
            "does not begin with the magic number `hotmerge`",
        ));
    }
    let half = |at: usize| object.endian.read_u16([rest[at], rest[at + 1]]);
    Ok(TableHeader {
        magic: MAGIC,
        abi_major: half(0),
        abi_minor: half(2),
        size: object.endian.read_u32([rest[4], rest[5], rest[6], rest[7]]),
    })
}

/// What the dynamic segment says about exported symbols.
struct Dynamic<'data, 'object, Elf: FileHeader> {
    object: &'object Object<'data, Elf>,
    symbols: u64,
    strings: u64,
    strings_len: u64,
    gnu_hash: Option<u64>,
    hash: Option<u64>,
}

impl<'data, 'object, Elf: FileHeader<Endian = Endianness>> Dynamic<'data, 'object, Elf> {
    fn of(object: &'object Object<'data, Elf>) -> Result<Self, ImageError> {
        let endian = object.endian;
        let mut tags = [None; 5];
        for entry in object.dynamic()? {
            let slot = match entry.tag(endian) {
                elf::DT_NULL => break,
                elf::DT_SYMTAB => 0,
                elf::DT_STRTAB => 1,
                elf::DT_STRSZ => 2,
                elf::DT_GNU_HASH => 3,
                elf::DT_HASH => 4,
                _ => continue,
            };
            // Of several entries with one tag the loader keeps the last.
            tags[slot] = Some(entry.val(endian));
        }
        let [
            Some(symbols),
            Some(strings),
            Some(strings_len),
            gnu_hash,
            hash,
        ] = tags
        else {
            return Err(ImageError::NoEntry);
        };
        Ok(Self {
            object,
            symbols,
            strings,
            strings_len,
            gnu_hash,
            hash,
        })
    }

    /// Address of the one object that is exported under the contract's name.
    fn entry(&self) -> Result<u64, ImageError> {
        let endian = self.object.endian;
        let strings = self.strings()?;
        let mut found = self.symbols()?.iter().filter(|symbol| {
            symbol.name(endian, strings) == Ok(ENTRY_SYMBOL.as_bytes())
                && is_export::<Elf>(symbol, endian)
        });
        let symbol = found.next().ok_or(ImageError::NoEntry)?;
        if found.next().is_some() {
            return Err(ImageError::NotATable("is exported more than once"));
        }
        if symbol.st_type() != elf::STT_OBJECT {
            return Err(ImageError::NotATable("is not data"));
        }
        if symbol.st_size(endian).into() < HEADER_BYTES {
            return Err(ImageError::NotATable("is smaller than a table's header"));
        }
        Ok(symbol.st_value(endian).into())
    }

    fn strings(&self) -> Result<StringTable<'data>, ImageError> {
        let bytes = self.object.at(self.strings).unwrap_or_default();
        if self.strings_len > bytes.len() as u64 {
            return malformed("the dynamic string table leaves its segment");
        }
        Ok(StringTable::new(bytes, 0, self.strings_len))
    }

    fn symbols(&self) -> Result<&'data [Elf::Sym], ImageError> {
        let bytes = self.object.at(self.symbols).unwrap_or_default();
        let count = self.count().unwrap_or_default();
        match object::slice_from_bytes(bytes, count as usize) {
            Ok((symbols, _)) => Ok(symbols),
            Err(()) => malformed("the dynamic symbol table leaves its segment"),
        }
    }

    /// Only a hash table knows how many dynamic symbols there are.
    fn count(&self) -> Option<u32> {
        let endian = self.object.endian;
        if let Some(address) = self.gnu_hash {
            let bytes = self.object.at(address)?;
            return GnuHashTable::<Elf>::parse(endian, bytes)
                .ok()?
                .symbol_table_length(endian);
        }
        let bytes = self.object.at(self.hash?)?;
        Some(
            HashTable::<Elf>::parse(endian, bytes)
                .ok()?
                .symbol_table_length(),
        )
    }
}

/// Whether `dlsym` would consider the symbol.
fn is_export<Elf: FileHeader<Endian = Endianness>>(symbol: &Elf::Sym, endian: Endianness) -> bool {
    let section = symbol.st_shndx(endian);
    section != elf::SHN_UNDEF
        && section != elf::SHN_ABS
        && matches!(
            symbol.st_bind(),
            elf::STB_GLOBAL | elf::STB_WEAK | elf::STB_GNU_UNIQUE
        )
        && matches!(
            symbol.st_visibility(),
            elf::STV_DEFAULT | elf::STV_PROTECTED
        )
}
