//! Code of a plugin that the dynamic loader would run while it loads it, and how to keep it from that:
//! a worker shuts itself in between loading a plugin and running anything of it.
//!
//! The loader learns of constructors from three tags. In the copy that a worker loads they are others,
//! which no loader knows; the constructors are run afterwards from where they lie in memory, in the
//! order and with the arguments that the loader has.
//!
//! Invariant: the tags are looked for where the loader will read them, or the file is refused.
//!
//! Absent on purpose: code that runs while symbols are resolved (IFUNC). Such files are refused before.

use std::{
    ffi::{c_char, c_int, c_void},
    sync::OnceLock,
};

use object::{
    Endianness,
    elf::{self, Dyn64, FileHeader64, ProgramHeader64},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _},
};

/// Smallest page there is: the loader maps whole ones.
const PAGE_BYTES: u64 = 4096;

/// A tag that means nothing to any loader, in the range that is everybody's own.
const NO_TAG: u64 = 0x6000_0f00;

/// Bytes of an entry of the dynamic segment, of its tag and of an address.
const ENTRY_BYTES: u64 = size_of::<Dyn64<Endianness>>() as u64;
const WORD_BYTES: u64 = 8;

/// The constructors of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constructors {
    /// Where in the image the tags lie that describe them.
    tags: Vec<u64>,
    /// Address of the first one, before the image is moved.
    first: Option<u64>,
    /// Address and size of the list of the others.
    list: Option<(u64, u64)>,
    /// Of the image in memory, what no file holds, or no longer once it is written to.
    pub(crate) writable_bytes: u64,
}

/// Why constructors cannot be identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to determine what would run while it is loaded: {0}")]
pub struct ConstructorsError(&'static str);

impl Constructors {
    /// Finds those of an image.
    ///
    /// # Errors
    /// If the loader might see others.
    pub fn of(image: &[u8]) -> Result<Self, ConstructorsError> {
        let unknown = |_| ConstructorsError("it is not a 64-bit ELF file");
        let header = FileHeader64::<Endianness>::parse(image).map_err(unknown)?;
        let endian = header.endian().map_err(unknown)?;
        if endian != Endianness::default() {
            return Err(ConstructorsError("its byte order differs from the host's"));
        }
        let segments = header.program_headers(endian, image).map_err(unknown)?;
        let mut found = Self {
            writable_bytes: writable_bytes(endian, segments),
            ..Self::default()
        };
        let (mut list, mut list_bytes) = (None, None);
        let (begin, entries) = dynamic(image, endian, segments)?;
        for (entry, at) in entries.iter().zip((begin..).step_by(ENTRY_BYTES as usize)) {
            let value = entry.val(endian);
            match entry.tag(endian) {
                elf::DT_NULL => {
                    found.list = list.zip(list_bytes);
                    return Ok(found);
                }
                elf::DT_INIT => found.first = Some(value),
                elf::DT_INIT_ARRAY => list = Some(value),
                elf::DT_INIT_ARRAYSZ => list_bytes = Some(value),
                elf::DT_PREINIT_ARRAY => {}
                _ => continue,
            }
            found.tags.push(at);
        }
        Err(ConstructorsError("its dynamic segment has no end mark"))
    }

    /// What to write over the image so that no loader runs any of them: words by their offsets.
    pub fn disarmed(&self) -> impl Iterator<Item = (u64, u64)> {
        self.tags.iter().map(|at| (*at, NO_TAG))
    }

    /// As numbers, to be handed to a worker: 0 is not an address of either.
    pub fn to_words(&self) -> [u64; 3] {
        let (list, bytes) = self.list.unwrap_or_default();
        [self.first.unwrap_or(0), list, bytes]
    }

    /// The words from [`Constructors::to_words`], for the process that has the disarmed image.
    pub fn from_words([first, list, bytes]: [u64; 3]) -> Self {
        Self {
            tags: Vec::new(),
            first: Some(first).filter(|first| *first != 0),
            list: Some((list, bytes)).filter(|(list, _)| *list != 0),
            ..Self::default()
        }
    }

    /// Runs them.
    ///
    /// # Safety
    /// The image must be loaded there, without having been run.
    pub(crate) unsafe fn run(&self, base: usize) {
        type Constructor = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char);
        let at = |address: u64| base.wrapping_add(address as usize);
        let none = nothing();
        let run = |address: usize| {
            // SAFETY: the image says that it is a constructor, and the loader would believe it too;
            // what it does is the plugin's. The lists are empty and lie as those of a process do.
            unsafe {
                let run: Constructor = std::mem::transmute(address as *const c_void);
                run(0, none.as_ptr().cast(), none[1..].as_ptr().cast());
            }
        };
        if let Some(first) = self.first {
            run(at(first));
        }
        if let Some((list, bytes)) = self.list {
            for word in 0..bytes / WORD_BYTES {
                // SAFETY: the list lies in the image, relocated by now; the loader reads it so.
                run(unsafe { (at(list + word * WORD_BYTES) as *const usize).read_unaligned() });
            }
        }
    }
}

/// Arguments and environment of a process that has none of either, and what the kernel tells each process,
/// behind both. Go's runtime reads on from one to the next, also later and on threads of its own.
fn nothing() -> &'static [usize] {
    const TOLD: [libc::c_ulong; 5] = [
        libc::AT_PAGESZ,
        libc::AT_RANDOM,
        libc::AT_HWCAP,
        libc::AT_HWCAP2,
        libc::AT_SYSINFO_EHDR,
    ];
    static WORDS: OnceLock<Vec<usize>> = OnceLock::new();
    WORDS.get_or_init(|| {
        let mut words = vec![0, 0];
        for kind in TOLD {
            // SAFETY: it reads what the kernel told this process; 0 if it told nothing.
            let value = unsafe { libc::getauxval(kind) };
            if value != 0 {
                words.extend([kind as usize, value as usize]);
            }
        }
        words.extend([libc::AT_NULL as usize, 0]);
        words
    })
}

fn writable_bytes(endian: Endianness, segments: &[ProgramHeader64<Endianness>]) -> u64 {
    let loaded = segments
        .iter()
        .filter(|it| it.p_type(endian) == elf::PT_LOAD);
    let bytes = loaded.map(|it| match it.p_flags(endian).contains(elf::PF_W) {
        true => it.p_memsz(endian),
        false => it.p_memsz(endian).saturating_sub(it.p_filesz(endian)),
    });
    bytes.fold(0, u64::saturating_add)
}

/// The entries of the dynamic segment, and where in the image they begin.
fn dynamic<'a>(
    image: &'a [u8],
    endian: Endianness,
    segments: &[ProgramHeader64<Endianness>],
) -> Result<(u64, &'a [Dyn64<Endianness>]), ConstructorsError> {
    let of_type = |wanted| move |it: &&ProgramHeader64<_>| it.p_type(endian) == wanted;
    let loaded: Vec<_> = segments.iter().filter(of_type(elf::PT_LOAD)).collect();
    let mut end = 0;
    for segment in &loaded {
        let start = segment.p_vaddr(endian);
        if start / PAGE_BYTES * PAGE_BYTES < end {
            return Err(ConstructorsError("two segments share a page of memory"));
        }
        end = start.saturating_add(segment.p_memsz(endian));
    }
    let mut all = segments.iter().filter(of_type(elf::PT_DYNAMIC));
    let (Some(segment), None) = (all.next(), all.next()) else {
        return Err(ConstructorsError(
            "it must have exactly one dynamic segment",
        ));
    };
    let outside = ConstructorsError("its dynamic segment lies outside the loaded segments");
    let begin = loaded.iter().find_map(|load| {
        let skip = segment.p_vaddr(endian).checked_sub(load.p_vaddr(endian))?;
        let (offset, size) = load.file_range(endian);
        let left = size.checked_sub(skip)?;
        (left >= ENTRY_BYTES).then_some((offset.checked_add(skip)?, left))
    });
    let (begin, left) = begin.ok_or(outside)?;
    let bytes = usize::try_from(begin)
        .ok()
        .and_then(|begin| image.get(begin..))
        .ok_or(outside)?;
    let count = (left as usize).min(bytes.len()) / ENTRY_BYTES as usize;
    let (entries, _) = object::slice_from_bytes(bytes, count).map_err(|()| outside)?;
    Ok((begin, entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shared object that every system has, with constructors.
    fn object() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().last())
            .find(|path| path.contains("libc.so") || path.contains("libgcc_s"));
        std::fs::read(libc.expect("this program needs a library")).unwrap()
    }

    #[test]
    fn a_disarmed_image_has_no_constructors() {
        let mut image = object();
        let found = Constructors::of(&image).unwrap();
        assert!(!found.tags.is_empty(), "{found:?}");
        for (at, word) in found.disarmed() {
            let at = at as usize;
            image[at..at + 8].copy_from_slice(&word.to_ne_bytes());
        }
        let nothing = Constructors {
            writable_bytes: found.writable_bytes,
            ..Constructors::default()
        };
        assert_eq!(Constructors::of(&image), Ok(nothing));
        assert!(found.writable_bytes > 0);
        let handed = Constructors::from_words(found.to_words());
        assert_eq!((handed.first, handed.list), (found.first, found.list));
    }

    #[test]
    fn constructors_find_the_page_size() {
        // As Go's runtime looks for it: behind the arguments and the environment.
        let words = nothing();
        assert_eq!(words[..2], [0, 0]);
        let pairs: Vec<_> = words[2..].chunks(2).collect();
        // SAFETY: it only reads a setting.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = [libc::AT_PAGESZ as usize, page_bytes as usize];
        assert!(pairs.contains(&&page[..]), "{words:?}");
        assert_eq!(pairs.last(), Some(&&[0, 0][..]));
    }

    #[test]
    fn any_bytes_can_be_searched_for_constructors() {
        let image = object();
        for cut in (0..image.len().min(8192)).step_by(7) {
            let _ = Constructors::of(&image[..cut]);
        }
        for at in 0..1024 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut image = image[..image.len().min(1 << 16)].to_vec();
                image[at] = value;
                let _ = Constructors::of(&image);
            }
        }
    }
}
