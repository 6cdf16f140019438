//! Reads a plugin file as the dynamic loader does.

use object::{
    Endianness,
    elf::{self, FileHeader64},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

use crate::{
    file::{File, FileError, Segment},
    reader::Reader,
};

/// The machine of this program; `None` for unsupported ones.
const NATIVE: Option<elf::Machine> = if cfg!(target_arch = "x86_64") {
    Some(elf::EM_X86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(elf::EM_AARCH64)
} else if cfg!(target_arch = "riscv64") {
    Some(elf::EM_RISCV)
} else {
    None
};

/// Smallest page there is: the loader maps whole ones.
const PAGE_BYTES: u64 = 4096;

impl File {
    /// Reads the bytes of a plugin's image.
    ///
    /// # Errors
    /// If the loader could not parse it either, or it is not a 64-bit file.
    pub fn read(data: &[u8]) -> Result<Self, FileError> {
        let header = FileHeader64::<Endianness>::parse(data)
            .map_err(|_| FileError("it is not a 64-bit ELF file"))?;
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
        if NATIVE.is_some_and(|native| header.e_machine(endian) != native) {
            reader.odd(
                "machine",
                "it is for another processor; build it for this machine",
            );
        }
        reader.segments();
        reader.dynamic()?;
        Ok(reader.file)
    }
}

impl Reader<'_> {
    fn segments(&mut self) {
        let (mut stack, mut dynamic, mut end) = (None, 0, 0);
        for segment in self.segments {
            let runs = segment.p_flags(self.endian).contains(elf::PF_X);
            match segment.p_type(self.endian) {
                elf::PT_LOAD => {
                    let start = segment.p_vaddr(self.endian);
                    if start / PAGE_BYTES * PAGE_BYTES < end {
                        self.odd(
                            "segment",
                            "two share a page of memory, and the later replaces the earlier",
                        );
                    }
                    end = start.saturating_add(segment.p_memsz(self.endian));
                    self.loaded(segment);
                }
                // Of several the last one counts.
                elf::PT_GNU_STACK => stack = Some(runs),
                elf::PT_DYNAMIC => dynamic += 1,
                elf::PT_INTERP => self.odd("PT_INTERP", "only programs name an interpreter"),
                _ => {}
            }
        }
        if dynamic > 1 {
            self.odd(
                "PT_DYNAMIC",
                "there are several, and not all read the same one",
            );
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

    fn loaded(&mut self, segment: &elf::ProgramHeader64<Endianness>) {
        let flags = segment.p_flags(self.endian);
        let sign = |flag, sign| if flags.contains(flag) { sign } else { '-' };
        let signs = [
            sign(elf::PF_R, 'r'),
            sign(elf::PF_W, 'w'),
            sign(elf::PF_X, 'x'),
        ];
        self.file.segments.push(Segment {
            address: segment.p_vaddr(self.endian),
            bytes: segment.p_memsz(self.endian),
            access: signs.iter().collect(),
        });
        if flags.contains(elf::PF_W) && flags.contains(elf::PF_X) {
            self.odd("segment", "memory must not be writable and executable");
        }
    }
}
