//! Which bytes of a shared object its loader sees.
//!
//! Invariant: the headers of an image say the same as those of the file it was made from, so
//! that the image of an image is that image. Blanked bytes never lie in a header.

use std::{mem, ops::Range};

use object::{
    Endianness,
    elf::{self, FileHeader32, FileHeader64},
    read::elf::{FileHeader, NoteIterator, ProgramHeader},
};

use super::{ImageError, Machine};

/// Real plugins have about a dozen program headers. The limit keeps the work for a
/// hostile file proportional to its size.
const MAX_PROGRAM_HEADERS: usize = 128;

/// Real note segments are below 200 bytes. What is in a larger one is simply hashed.
const MAX_NOTE_BYTES: usize = 4096;

/// A build-id is 8 to 32 bytes. What is larger is simply hashed.
const MAX_BUILD_ID_BYTES: usize = 64;

/// What to keep of a file, and what to blank in the kept parts.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) machine: Machine,
    /// In file order; may touch and overlap.
    keep: Vec<Range<usize>>,
    /// Within what is kept.
    blank: Vec<Range<usize>>,
}

impl Layout {
    /// Reads the headers. Nothing is changed, so a refused file costs no pass over its bytes.
    pub(super) fn of(file: &[u8]) -> Result<Self, ImageError> {
        match class(file)? {
            elf::ELFCLASS32 => Self::read::<FileHeader32<Endianness>>(file),
            _ => Self::read::<FileHeader64<Endianness>>(file),
        }
    }

    fn read<Elf: FileHeader<Endian = Endianness>>(file: &[u8]) -> Result<Self, ImageError> {
        let elf = Object::<Elf>::parse(file, file.len() as u64)?;
        let loads = elf.loads()?;
        let mut blank = section_fields::<Elf>().to_vec();
        blank.extend(elf.build_id(&loads));
        let mut keep = loads;
        keep.extend(elf.header_ranges());
        keep.sort_by_key(|range| (range.start, range.end));
        Ok(Self {
            machine: elf.machine(),
            keep,
            blank,
        })
    }

    /// Makes the image. The gaps between kept parts are small or absent in real files.
    pub(super) fn apply(&self, file: &mut Vec<u8>) {
        let mut end = 0;
        for range in &self.keep {
            if range.start > end {
                file[end..range.start].fill(0);
            }
            end = end.max(range.end);
        }
        file.truncate(end);
        for range in &self.blank {
            file[range.clone()].fill(0);
        }
    }
}

/// How many bytes from the start of a file its image is made of, judged from the first bytes
/// of the file and its length. `None` if the program headers are not among these bytes.
pub(super) fn extent(head: &[u8], file_len: u64) -> Result<Option<u64>, ImageError> {
    fn read<Elf: FileHeader<Endian = Endianness>>(
        head: &[u8],
        file_len: u64,
    ) -> Result<Option<u64>, ImageError> {
        let elf = match Object::<Elf>::parse(head, file_len) {
            Err(ImageError::Truncated { end, .. }) if end <= file_len => return Ok(None),
            other => other?,
        };
        let ends = elf.loads()?.into_iter().chain(elf.header_ranges());
        Ok(ends.map(|range| range.end as u64).max())
    }
    match class(head)? {
        elf::ELFCLASS32 => read::<FileHeader32<Endianness>>(head, file_len),
        _ => read::<FileHeader64<Endianness>>(head, file_len),
    }
}

/// The class byte, once it is clear that this is ELF at all.
pub(super) fn class(file: &[u8]) -> Result<elf::FileClass, ImageError> {
    if file.is_empty() {
        return Err(ImageError::Empty);
    }
    let magic = &elf::ELFMAG[..file.len().min(elf::ELFMAG.len())];
    if !file.starts_with(magic) {
        return Err(ImageError::NotElf);
    }
    let ident = |at: usize| file.get(at).copied();
    let (Some(class), Some(order), Some(version)) = (ident(4), ident(5), ident(6)) else {
        return Err(truncated("the ELF header", 52, file.len() as u64));
    };
    let unknown = |what, value| Err(ImageError::UnknownIdent { what, value });
    let class = elf::FileClass(class);
    if class != elf::ELFCLASS32 && class != elf::ELFCLASS64 {
        return unknown("class", class.0);
    }
    if !matches!(
        elf::DataEncoding(order),
        elf::ELFDATA2LSB | elf::ELFDATA2MSB
    ) {
        return unknown("byte order", order);
    }
    if version != elf::EV_CURRENT.0 {
        return unknown("version", version);
    }
    Ok(class)
}

/// Where e_shoff and the last three halfwords of the header lie: the fields about sections,
/// which no loader reads and every stripper changes. (ELF specification, "ELF Header".)
fn section_fields<Elf: FileHeader>() -> [Range<usize>; 2] {
    if Elf::is_type_64_sized() {
        [40..48, 58..64]
    } else {
        [32..36, 46..52]
    }
}

fn truncated(what: impl Into<String>, end: u64, len: u64) -> ImageError {
    ImageError::Truncated {
        what: what.into(),
        end,
        len,
    }
}

pub(super) fn malformed<T>(what: impl Into<String>) -> Result<T, ImageError> {
    Err(ImageError::Malformed(what.into()))
}

/// The range of a part that must lie within `len` bytes.
fn part(
    what: impl FnOnce() -> String,
    offset: u64,
    size: u64,
    len: u64,
) -> Result<Range<usize>, ImageError> {
    let end = offset.saturating_add(size);
    match (usize::try_from(offset), usize::try_from(end)) {
        (Ok(start), Ok(stop)) if end <= len => Ok(start..stop),
        _ => Err(truncated(what(), end, len)),
    }
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

/// A shared object whose header and program headers are at hand.
pub(super) struct Object<'data, Elf: FileHeader> {
    /// The file, or its first part.
    bytes: &'data [u8],
    /// Length of the whole file.
    len: u64,
    pub(super) endian: Elf::Endian,
    header: &'data Elf,
    segments: &'data [Elf::ProgramHeader],
    segments_range: Range<usize>,
}

impl<'data, Elf: FileHeader<Endian = Endianness>> Object<'data, Elf> {
    pub(super) fn parse(bytes: &'data [u8], len: u64) -> Result<Self, ImageError> {
        let size = mem::size_of::<Elf>();
        let header =
            Elf::parse(bytes).map_err(|_| truncated("the ELF header", size as u64, len))?;
        let endian = if header.is_big_endian() {
            Endianness::Big
        } else {
            Endianness::Little
        };
        let kind = header.e_type(endian);
        if kind != elf::ET_DYN {
            return Err(ImageError::NotShared {
                kind: kind
                    .name()
                    .map_or_else(|| kind.0.to_string(), str::to_owned),
            });
        }
        let (segments, segments_range) = Self::segments(bytes, len, header, endian)?;
        Ok(Self {
            bytes,
            len,
            endian,
            header,
            segments,
            segments_range,
        })
    }

    fn segments(
        bytes: &'data [u8],
        len: u64,
        header: &Elf,
        endian: Endianness,
    ) -> Result<(&'data [Elf::ProgramHeader], Range<usize>), ImageError> {
        let count = usize::from(header.e_phnum(endian));
        if count == 0 {
            return Err(ImageError::NoLoad);
        }
        if count > MAX_PROGRAM_HEADERS {
            return malformed(format!(
                "it has {count} program headers; at most {MAX_PROGRAM_HEADERS} are accepted"
            ));
        }
        let size = mem::size_of::<Elf::ProgramHeader>();
        let given = usize::from(header.e_phentsize(endian));
        if given != size {
            return malformed(format!(
                "its program headers have {given} bytes instead of {size}"
            ));
        }
        let offset: u64 = header.e_phoff(endian).into();
        if offset < mem::size_of::<Elf>() as u64 {
            return malformed("its program headers overlap the ELF header");
        }
        let what = || "the table of program headers".to_owned();
        let range = part(what, offset, (count * size) as u64, len)?;
        let table = bytes.get(range.clone()).and_then(|table| {
            let (segments, _) = object::slice_from_bytes(table, count).ok()?;
            Some(segments)
        });
        match table {
            Some(segments) => Ok((segments, range)),
            // It is in the file, but further on than what was read of it.
            None => Err(truncated(what(), range.end as u64, bytes.len() as u64)),
        }
    }

    pub(super) fn machine(&self) -> Machine {
        Machine {
            bits: if Elf::is_type_64_sized() { 64 } else { 32 },
            big_endian: self.header.is_big_endian(),
            code: self.header.e_machine(self.endian).0,
        }
    }

    /// The ELF header and the program headers.
    fn header_ranges(&self) -> [Range<usize>; 2] {
        [0..mem::size_of::<Elf>(), self.segments_range.clone()]
    }

    fn of_type(&self, kind: elf::ProgramType) -> impl Iterator<Item = &'data Elf::ProgramHeader> {
        let endian = self.endian;
        self.segments
            .iter()
            .filter(move |segment| segment.p_type(endian) == kind)
    }

    /// File contents of the loadable segments, whose addresses must make sense.
    fn loads(&self) -> Result<Vec<Range<usize>>, ImageError> {
        let mut ranges = Vec::new();
        let mut end_in_memory = 0;
        for (index, segment) in self.of_type(elf::PT_LOAD).enumerate() {
            let what = || format!("loadable segment {index}");
            let (offset, size) = segment.file_range(self.endian);
            ranges.push(part(what, offset, size, self.len)?);
            end_in_memory = self
                .check_addresses(segment, end_in_memory)
                .or_else(|wrong| malformed(format!("{} {wrong}", what())))?;
        }
        if ranges.is_empty() {
            return Err(ImageError::NoLoad);
        }
        Ok(ranges)
    }

    /// What every loader takes for granted or refuses. Returns where the segment ends.
    fn check_addresses(
        &self,
        segment: &Elf::ProgramHeader,
        previous_end: u64,
    ) -> Result<u64, &'static str> {
        let (offset, size) = segment.file_range(self.endian);
        let start: u64 = segment.p_vaddr(self.endian).into();
        let size_in_memory: u64 = segment.p_memsz(self.endian).into();
        let align: u64 = segment.p_align(self.endian).into();
        if size > size_in_memory {
            return Err("is larger in the file than in memory");
        }
        if start < previous_end {
            return Err("overlaps the one before it in memory");
        }
        if align > 1 && !align.is_power_of_two() {
            return Err("has an alignment that is not a power of two");
        }
        if align > 1 && start.wrapping_sub(offset) & (align - 1) != 0 {
            return Err("lies differently in the file and in memory");
        }
        start
            .checked_add(size_in_memory)
            .ok_or("ends beyond the address space")
    }

    /// The file contents of the loaded segment around `address`, from there on.
    pub(super) fn at(&self, address: u64) -> Option<&'data [u8]> {
        self.of_type(elf::PT_LOAD).find_map(|segment| {
            let (offset, size) = segment.file_range(self.endian);
            let range = part(String::new, offset, size, self.bytes.len() as u64).ok()?;
            let skip = address.checked_sub(segment.p_vaddr(self.endian).into())?;
            let rest = self.bytes[range].get(usize::try_from(skip).ok()?..)?;
            (!rest.is_empty()).then_some(rest)
        })
    }

    /// The entries of the dynamic segment, where it lies in memory.
    pub(super) fn dynamic(&self) -> Result<&'data [Elf::Dyn], ImageError> {
        let segment = self
            .of_type(elf::PT_DYNAMIC)
            .next()
            .ok_or(ImageError::NoEntry)?;
        let size = usize::try_from(segment.p_filesz(self.endian).into()).unwrap_or(usize::MAX);
        let bytes = self
            .at(segment.p_vaddr(self.endian).into())
            .and_then(|bytes| bytes.get(..size));
        let Some(bytes) = bytes else {
            return malformed("its dynamic segment lies outside the loaded segments");
        };
        match object::slice_from_bytes(bytes, bytes.len() / mem::size_of::<Elf::Dyn>()) {
            Ok((entries, _)) => Ok(entries),
            Err(()) => malformed("its dynamic segment cannot be read"),
        }
    }

    /// The bytes of the build-id, without the header of their note.
    ///
    /// Only notes that are loaded count, since nothing else is kept. One that lies in a header
    /// or in two note segments is left alone: to blank it would change what the headers or
    /// the notes say.
    fn build_id(&self, loads: &[Range<usize>]) -> Option<Range<usize>> {
        let notes: Vec<_> = self
            .of_type(elf::PT_NOTE)
            .filter_map(|segment| {
                let (offset, size) = segment.file_range(self.endian);
                let range = part(String::new, offset, size, self.bytes.len() as u64).ok()?;
                let loaded = loads.iter().any(|load| contains(load, &range));
                (loaded && range.len() <= MAX_NOTE_BYTES).then_some((segment, range))
            })
            .collect();
        let id = notes
            .iter()
            .find_map(|(segment, range)| self.build_id_in(segment, range.clone()))?;
        let in_header = self.header_ranges().iter().any(|range| overlap(range, &id));
        let in_notes = notes
            .iter()
            .filter(|(_, range)| overlap(range, &id))
            .count();
        (!in_header && in_notes == 1).then_some(id)
    }

    fn build_id_in(
        &self,
        segment: &Elf::ProgramHeader,
        range: Range<usize>,
    ) -> Option<Range<usize>> {
        let data = &self.bytes[range];
        let align = segment.p_align(self.endian);
        let mut notes = NoteIterator::<Elf>::new(self.endian, align, data).ok()?;
        while let Ok(Some(note)) = notes.next() {
            let id = note.desc();
            if note.name() == elf::ELF_NOTE_GNU
                && note.n_type(self.endian) == elf::NT_GNU_BUILD_ID
                && (1..=MAX_BUILD_ID_BYTES).contains(&id.len())
            {
                let start = id.as_ptr().addr() - self.bytes.as_ptr().addr();
                return Some(start..start + id.len());
            }
        }
        None
    }
}
