//! Which bytes of a shared object its loader sees.

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
const MAX_NOTE_BYTES: u64 = 4096;

/// A build-id is 8 to 32 bytes. What is larger is simply hashed.
const MAX_BUILD_ID_BYTES: usize = 64;

/// What to keep of a file, and what to blank in the kept parts.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) machine: Machine,
    /// In file order; may touch and overlap.
    keep: Vec<Range<usize>>,
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
        let elf = Object::<Elf>::parse(file)?;
        let mut keep = vec![0..mem::size_of::<Elf>(), elf.segments_range.clone()];
        keep.extend(elf.loads()?);
        keep.sort_by_key(|range| (range.start, range.end));
        let mut blank = section_fields::<Elf>().to_vec();
        blank.extend(elf.build_id());
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
    let (Some(class), Some(data), Some(version)) = (ident(4), ident(5), ident(6)) else {
        return Err(truncated("the ELF header", 52, file.len()));
    };
    let unknown = |what, value| Err(ImageError::UnknownIdent { what, value });
    let class = elf::FileClass(class);
    if class != elf::ELFCLASS32 && class != elf::ELFCLASS64 {
        return unknown("class", class.0);
    }
    if !matches!(elf::DataEncoding(data), elf::ELFDATA2LSB | elf::ELFDATA2MSB) {
        return unknown("byte order", data);
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

fn truncated(what: impl Into<String>, end: u64, len: usize) -> ImageError {
    ImageError::Truncated {
        what: what.into(),
        end,
        len: len as u64,
    }
}

pub(super) fn malformed<T>(what: impl Into<String>) -> Result<T, ImageError> {
    Err(ImageError::Malformed(what.into()))
}

/// A shared object whose header and program headers are in the file.
pub(super) struct Object<'data, Elf: FileHeader> {
    pub(super) file: &'data [u8],
    pub(super) endian: Elf::Endian,
    header: &'data Elf,
    segments: &'data [Elf::ProgramHeader],
    segments_range: Range<usize>,
}

impl<'data, Elf: FileHeader<Endian = Endianness>> Object<'data, Elf> {
    pub(super) fn parse(file: &'data [u8]) -> Result<Self, ImageError> {
        let size = mem::size_of::<Elf>();
        let header =
            Elf::parse(file).map_err(|_| truncated("the ELF header", size as u64, file.len()))?;
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
        let (segments, segments_range) = Self::segments(file, header, endian)?;
        Ok(Self {
            file,
            endian,
            header,
            segments,
            segments_range,
        })
    }

    fn segments(
        file: &'data [u8],
        header: &Elf,
        endian: Endianness,
    ) -> Result<(&'data [Elf::ProgramHeader], Range<usize>), ImageError> {
        let count = usize::from(header.e_phnum(endian));
        let size = mem::size_of::<Elf::ProgramHeader>();
        if count == 0 {
            return Err(ImageError::NoLoad);
        }
        if count > MAX_PROGRAM_HEADERS {
            return malformed(format!(
                "{count} program headers, of which {MAX_PROGRAM_HEADERS} are accepted"
            ));
        }
        let entry = usize::from(header.e_phentsize(endian));
        if entry != size {
            return malformed(format!(
                "program headers of {entry} bytes instead of {size}"
            ));
        }
        let offset: u64 = header.e_phoff(endian).into();
        let range = file_range(
            "the table of program headers",
            offset,
            (count * size) as u64,
            file,
        )?;
        let segments = object::slice_from_bytes(&file[range.clone()], count)
            .map_err(|()| ImageError::Malformed("misplaced program headers".to_owned()))?
            .0;
        Ok((segments, range))
    }

    fn machine(&self) -> Machine {
        Machine {
            bits: if Elf::is_type_64_sized() { 64 } else { 32 },
            big_endian: self.header.is_big_endian(),
            code: self.header.e_machine(self.endian).0,
        }
    }

    fn of_type(&self, kind: elf::ProgramType) -> impl Iterator<Item = &'data Elf::ProgramHeader> {
        let endian = self.endian;
        self.segments
            .iter()
            .filter(move |segment| segment.p_type(endian) == kind)
    }

    /// File contents of the loadable segments.
    fn loads(&self) -> Result<Vec<Range<usize>>, ImageError> {
        let mut ranges = Vec::new();
        for (index, segment) in self.of_type(elf::PT_LOAD).enumerate() {
            let (offset, size) = segment.file_range(self.endian);
            ranges.push(file_range(
                &format!("loadable segment {index}"),
                offset,
                size,
                self.file,
            )?);
        }
        if ranges.is_empty() {
            return Err(ImageError::NoLoad);
        }
        Ok(ranges)
    }

    /// The file contents of the loaded segment around `address`, from there on.
    pub(super) fn at(&self, address: u64) -> Option<&'data [u8]> {
        self.of_type(elf::PT_LOAD).find_map(|segment| {
            let (offset, size) = segment.file_range(self.endian);
            let range = file_range("", offset, size, self.file).ok()?;
            let skip = address.checked_sub(segment.p_vaddr(self.endian).into())?;
            let skip = usize::try_from(skip).ok()?;
            self.file[range]
                .get(skip..)
                .filter(|bytes| !bytes.is_empty())
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
            return malformed("the dynamic segment is not loaded");
        };
        let count = bytes.len() / mem::size_of::<Elf::Dyn>();
        match object::slice_from_bytes(bytes, count) {
            Ok((entries, _)) => Ok(entries),
            Err(()) => malformed("the dynamic segment is misplaced"),
        }
    }

    /// The bytes of the build-id, without the header of their note.
    fn build_id(&self) -> Option<Range<usize>> {
        self.of_type(elf::PT_NOTE)
            .find_map(|segment| self.build_id_in(segment))
    }

    fn build_id_in(&self, segment: &Elf::ProgramHeader) -> Option<Range<usize>> {
        let (offset, size) = segment.file_range(self.endian);
        if size > MAX_NOTE_BYTES {
            return None;
        }
        let notes = file_range("notes", offset, size, self.file).ok()?;
        let data = &self.file[notes.clone()];
        let mut iter =
            NoteIterator::<Elf>::new(self.endian, segment.p_align(self.endian), data).ok()?;
        while let Ok(Some(note)) = iter.next() {
            let desc = note.desc();
            if note.name() == elf::ELF_NOTE_GNU
                && note.n_type(self.endian) == elf::NT_GNU_BUILD_ID
                && (1..=MAX_BUILD_ID_BYTES).contains(&desc.len())
            {
                let start = desc.as_ptr().addr() - self.file.as_ptr().addr();
                return Some(start..start + desc.len());
            }
        }
        None
    }
}

fn file_range(what: &str, offset: u64, size: u64, file: &[u8]) -> Result<Range<usize>, ImageError> {
    let end = offset.saturating_add(size);
    if end > file.len() as u64 {
        return Err(truncated(what, end, file.len()));
    }
    // Both are at most the length of a slice.
    Ok(offset as usize..end as usize)
}
