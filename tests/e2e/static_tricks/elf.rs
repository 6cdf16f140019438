//! Changes single fields of a built plugin, where the dynamic loader reads them.

use object::{
    Endianness,
    elf::{self, Dyn64, DynamicTag, FileHeader64, ProgramHeader64, ProgramType, Rela64, Sym64},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _},
};

const LITTLE: Endianness = Endianness::Little;

/// The bytes of a 64-bit little-endian shared object.
pub(crate) struct Elf<'a>(pub(crate) &'a mut Vec<u8>);

impl Elf<'_> {
    pub(crate) fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&bytes);
    }

    fn headers(&self) -> (usize, Vec<ProgramHeader64<Endianness>>) {
        let header = FileHeader64::<Endianness>::parse(&self.0[..]).expect("it is ELF");
        let at = header.e_phoff.get(LITTLE) as usize;
        let headers = header.program_headers(LITTLE, &self.0[..]);
        (at, headers.expect("it is whole").to_vec())
    }

    /// Where the `number`th program header of a kind is.
    pub(crate) fn header(&self, kind: ProgramType, number: usize) -> usize {
        let (at, headers) = self.headers();
        let is = |header: &ProgramHeader64<Endianness>| header.p_type(LITTLE) == kind;
        let mut found = headers.iter().enumerate().filter(|(_, header)| is(header));
        let (index, _) = found.nth(number).expect("it has such a header");
        at + index * size_of::<ProgramHeader64<Endianness>>()
    }

    /// The first program header of a kind that the loader does not look at.
    pub(crate) fn spare_header(&self) -> usize {
        self.header(elf::PT_GNU_EH_FRAME, 0)
    }

    /// The number of the loadable segment with this access.
    pub(crate) fn segment(&self, access: elf::ProgramFlags) -> usize {
        let (_, headers) = self.headers();
        let mut loads = headers
            .iter()
            .filter(|header| header.p_type(LITTLE) == elf::PT_LOAD);
        let found = loads.position(|header| header.p_flags(LITTLE) == access);
        found.expect("it has such a segment")
    }

    /// The address where a segment begins.
    pub(crate) fn address(&self, number: usize) -> u64 {
        let at = self.header(elf::PT_LOAD, number) + 16;
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight"))
    }

    /// Where the contents of an address are in the file.
    fn place(&self, address: u64) -> usize {
        let (_, headers) = self.headers();
        let loads = headers
            .iter()
            .filter(|header| header.p_type(LITTLE) == elf::PT_LOAD);
        let mut place = loads.filter_map(|header| {
            let skip = address.checked_sub(header.p_vaddr(LITTLE))?;
            (skip < header.p_filesz(LITTLE)).then(|| (header.p_offset(LITTLE) + skip) as usize)
        });
        place.next().expect("it is loaded")
    }

    /// Where the entry of the dynamic segment with this tag is, and its value.
    pub(crate) fn dynamic(&self, tag: DynamicTag) -> (usize, u64) {
        let header = self.header(elf::PT_DYNAMIC, 0);
        let field = |at: usize| {
            let bytes = self.0[header + at..header + at + 8].try_into();
            u64::from_le_bytes(bytes.expect("eight")) as usize
        };
        let (at, bytes) = (field(8), field(32));
        let count = bytes / size_of::<Dyn64<Endianness>>();
        let (entries, _) = object::slice_from_bytes::<Dyn64<Endianness>>(&self.0[at..], count)
            .expect("it is whole");
        let index = entries.iter().position(|entry| entry.tag(LITTLE) == tag);
        let index = index.expect("it has such an entry");
        let place = at + index * size_of::<Dyn64<Endianness>>();
        (place, entries[index].val(LITTLE))
    }

    /// Makes the entry about the number of relative relocations, which is only a hint, another.
    pub(crate) fn replace_dynamic(&mut self, tag: u64, value: u64) {
        let (place, _) = self.dynamic(elf::DT_RELACOUNT);
        self.put(place, tag.to_le_bytes());
        self.put(place + 8, value.to_le_bytes());
    }

    /// Changes the value of an entry.
    pub(crate) fn set_dynamic(&mut self, tag: DynamicTag, value: u64) {
        let (place, _) = self.dynamic(tag);
        self.put(place + 8, value.to_le_bytes());
    }

    /// Where the first relocation is: one without a symbol.
    pub(crate) fn relocation(&self) -> usize {
        self.place(self.dynamic(elf::DT_RELA).1)
    }

    /// Where the first relocation with a symbol is, by way of the linkage table.
    pub(crate) fn linkage(&self) -> usize {
        self.place(self.dynamic(elf::DT_JMPREL).1)
    }

    /// Where the symbol of a relocation is.
    pub(crate) fn symbol_of(&self, relocation: usize) -> usize {
        let rela = &self.0[relocation..relocation + size_of::<Rela64<Endianness>>()];
        let index = u32::from_le_bytes(rela[12..16].try_into().expect("four"));
        let symbols = self.place(self.dynamic(elf::DT_SYMTAB).1);
        symbols + index as usize * size_of::<Sym64<Endianness>>()
    }

    /// Where the hash table over the symbols is.
    pub(crate) fn hash_table(&self) -> usize {
        self.place(self.dynamic(elf::DT_GNU_HASH).1)
    }

    /// Gives an imported symbol another name, no longer than it was.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        let strings = self.place(self.dynamic(elf::DT_STRTAB).1);
        let wanted = format!("\0{from}\0");
        let mut windows = self.0[strings..].windows(wanted.len());
        let at = windows.position(|window| window == wanted.as_bytes());
        let at = strings + at.expect("it is imported") + 1;
        self.0[at..at + from.len()].fill(0);
        self.0[at..at + to.len()].copy_from_slice(to.as_bytes());
    }

    /// Where the name of a library begins, in the string table.
    pub(crate) fn needed(&self) -> u64 {
        self.dynamic(elf::DT_NEEDED).1
    }

    /// Removes what linkers and debuggers read, and loaders do not.
    pub(crate) fn without_sections(&mut self) {
        self.0[0x28..0x30].fill(0);
        self.0[0x3a..0x40].fill(0);
    }
}
