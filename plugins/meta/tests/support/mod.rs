//! Small shared objects, written byte by byte, so that what reads them is not also what
//! wrote them. Both word sizes, both byte orders, both kinds of symbol hash.

#![allow(dead_code)] // Each test program uses its own part.

use hotmerge_abi::TableHeader;
use hotmerge_meta::{Abi, FileName, Handover, Image, Meta, PluginMeta, Wants};

/// How a shared object shall look.
#[derive(Clone, Debug)]
pub struct Elf {
    pub wide: bool,
    pub big_endian: bool,
    pub machine: u16,
    pub gnu_hash: bool,
    pub symbol: &'static str,
    pub header: TableHeader,
    pub build_id: Vec<u8>,
    pub code: Vec<u8>,
    /// What follows the last segment: section headers, debug information.
    pub tail: Vec<u8>,
}

impl Default for Elf {
    fn default() -> Self {
        Self {
            wide: true,
            big_endian: false,
            machine: 62,
            gnu_hash: true,
            symbol: hotmerge_abi::ENTRY_SYMBOL,
            header: TableHeader::CURRENT,
            build_id: vec![0xb1; 20],
            code: b"code".to_vec(),
            tail: b"sections and symbols".to_vec(),
        }
    }
}

/// Where the parts of an object lie in the file.
#[derive(Clone, Debug)]
pub struct Built {
    pub file: Vec<u8>,
    pub program_headers: usize,
    pub table: usize,
    pub build_id: std::ops::Range<usize>,
    pub loads: Vec<std::ops::Range<usize>>,
}

/// The second segment lies this much further on in memory than in the file.
const SHIFT: u64 = 0x1000;

const SEGMENTS: usize = 4;

impl Elf {
    pub fn build(&self) -> Built {
        let mut out = Out::new(self);
        let (head, segment) = if self.wide { (64, 56) } else { (52, 32) };
        out.bytes.resize(head + SEGMENTS * segment, 0);

        out.align();
        let note = out.bytes.len();
        out.u32(4);
        out.u32(self.build_id.len() as u32);
        out.u32(3);
        out.bytes.extend(b"GNU\0");
        let build_id = out.bytes.len()..out.bytes.len() + self.build_id.len();
        out.bytes.extend(&self.build_id);
        let note_end = out.bytes.len();

        out.align();
        let hash = out.bytes.len();
        self.hash(&mut out);
        out.align();
        let strings = out.bytes.len();
        out.bytes.push(0);
        out.bytes.extend(self.symbol.as_bytes());
        out.bytes.push(0);
        let strings_len = out.bytes.len() - strings;
        out.align();
        let symbols = out.bytes.len();
        let symbol_len = if self.wide { 24 } else { 16 };
        let first_end = symbols + 2 * symbol_len;
        // Something between the segments that nobody may see.
        let second = first_end + 24;
        let table = second as u64 + SHIFT;
        out.bytes.resize(symbols + symbol_len, 0);
        self.symbol(&mut out, table);
        out.bytes.resize(second, 0xee);

        self.header(&mut out);
        out.bytes.extend(&self.code);
        out.align();
        let dynamic = out.bytes.len();
        let hash_tag = if self.gnu_hash { 0x6fff_fef5 } else { 4 };
        for (tag, value) in [
            (5, strings as u64),
            (6, symbols as u64),
            (10, strings_len as u64),
            (hash_tag, hash as u64),
            (0, 0),
        ] {
            out.word(tag);
            out.word(value);
        }
        let end = out.bytes.len();
        out.bytes.extend(&self.tail);

        let loads = vec![0..first_end, second..end];
        let mut front = Out::new(self);
        self.front(&mut front, head as u64, end as u64);
        for (kind, range, shift) in [
            (1, loads[0].clone(), 0),
            (1, loads[1].clone(), SHIFT),
            (2, dynamic..end, SHIFT),
            (4, note..note_end, 0),
        ] {
            self.segment(
                &mut front,
                kind,
                range.start as u64,
                range.len() as u64,
                shift,
            );
        }
        out.bytes[..front.bytes.len()].copy_from_slice(&front.bytes);
        Built {
            file: out.bytes,
            program_headers: head,
            table: second,
            build_id,
            loads,
        }
    }

    fn front(&self, out: &mut Out, head: u64, sections: u64) {
        let class = if self.wide { 2 } else { 1 };
        let order = if self.big_endian { 2 } else { 1 };
        out.bytes.extend([0x7f, b'E', b'L', b'F', class, order, 1]);
        out.bytes.resize(16, 0);
        out.u16(3);
        out.u16(self.machine);
        out.u32(1);
        out.word(0);
        out.word(head);
        out.word(sections);
        out.u32(0);
        out.u16(head as u16);
        out.u16(if self.wide { 56 } else { 32 });
        out.u16(SEGMENTS as u16);
        out.u16(if self.wide { 64 } else { 40 });
        out.u16(7);
        out.u16(6);
    }

    fn segment(&self, out: &mut Out, kind: u32, offset: u64, len: u64, shift: u64) {
        let align = if kind == 1 { 0x1000 } else { 4 };
        out.u32(kind);
        if self.wide {
            out.u32(5);
        }
        out.word(offset);
        out.word(offset + shift);
        out.word(offset + shift);
        out.word(len);
        out.word(len);
        if !self.wide {
            out.u32(5);
        }
        out.word(align);
    }

    fn symbol(&self, out: &mut Out, value: u64) {
        const GLOBAL_OBJECT: u8 = 0x11;
        let size = u64::from(self.header.size);
        out.u32(1);
        if self.wide {
            out.bytes.extend([GLOBAL_OBJECT, 0]);
            out.u16(1);
        }
        out.word(value);
        out.word(size);
        if !self.wide {
            out.bytes.extend([GLOBAL_OBJECT, 0]);
            out.u16(1);
        }
    }

    fn hash(&self, out: &mut Out) {
        if self.gnu_hash {
            [1, 1, 1, 0].into_iter().for_each(|field| out.u32(field));
            out.word(u64::MAX);
            out.u32(1);
            let hash = self.symbol.bytes().fold(5381_u32, |hash, byte| {
                hash.wrapping_mul(33).wrapping_add(u32::from(byte))
            });
            out.u32(hash | 1);
        } else {
            [1, 2, 1, 0, 0].into_iter().for_each(|field| out.u32(field));
        }
    }

    fn header(&self, out: &mut Out) {
        out.bytes.extend(self.header.magic);
        out.u16(self.header.abi_major);
        out.u16(self.header.abi_minor);
        out.u32(self.header.size);
    }
}

struct Out {
    bytes: Vec<u8>,
    wide: bool,
    big_endian: bool,
}

impl Out {
    fn new(elf: &Elf) -> Self {
        Self {
            bytes: Vec::new(),
            wide: elf.wide,
            big_endian: elf.big_endian,
        }
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    fn word(&mut self, value: u64) {
        if self.wide {
            self.put(&value.to_be_bytes());
        } else {
            self.u32(value as u32);
        }
    }

    fn put(&mut self, big_endian: &[u8]) {
        if self.big_endian {
            self.bytes.extend(big_endian);
        } else {
            self.bytes.extend(big_endian.iter().rev());
        }
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }
}

/// All combinations of word size, byte order and hash.
pub fn kinds() -> impl Iterator<Item = Elf> {
    (0..8).map(|bits| Elf {
        wide: bits & 1 == 0,
        big_endian: bits & 2 != 0,
        gnu_hash: bits & 4 == 0,
        ..Elf::default()
    })
}

/// What a driver would write about a file.
pub fn describe(name: &str, file: &str, bytes: &[u8]) -> PluginMeta {
    let image = Image::normalise(bytes.to_vec()).unwrap();
    PluginMeta {
        name: name.parse().unwrap(),
        version: "0.1.0".parse().unwrap(),
        file: FileName::new(file).unwrap(),
        hash: image.digest(),
        size: image.len() as u64,
        abi: Abi::from(&image.header().unwrap()),
        target: "x86_64-unknown-linux-gnu".to_owned(),
        handover: Handover::default(),
        requires: Vec::new(),
        wants: Wants::default(),
    }
}

/// A meta of these plugins: name, file name, contents.
pub fn meta(plugins: &[(&str, &str, &[u8])]) -> Meta {
    let describe = |(name, file, bytes): &(&str, &str, &[u8])| describe(name, file, bytes);
    Meta::new(plugins.iter().map(describe).collect()).unwrap()
}
