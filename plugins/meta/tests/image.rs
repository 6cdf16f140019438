//! The image and the entry of small shared objects of every kind, and what is refused.

mod support;

use hotmerge_abi::TableHeader;
use hotmerge_meta::{Digest, Image, ImageError, Machine, check_abi};
use proptest::prelude::*;
use support::{Built, Elf, kinds};

fn normalise(file: &[u8]) -> Result<Image, ImageError> {
    Image::normalise(file.to_vec())
}

/// Whether the loader or the code can see a byte, worked out from where the builder put things.
fn is_visible(elf: &Elf, built: &Built, at: usize) -> bool {
    let section_fields = if elf.wide {
        [40..48, 58..64]
    } else {
        [32..36, 46..52]
    };
    built.loads.iter().any(|load| load.contains(&at))
        && !built.build_id.contains(&at)
        && !section_fields.iter().any(|field| field.contains(&at))
}

fn expected(elf: &Elf, built: &Built) -> Vec<u8> {
    let byte = |at| {
        if is_visible(elf, built, at) {
            built.file[at]
        } else {
            0
        }
    };
    (0..built.loads[1].end).map(byte).collect()
}

#[test]
fn the_image_is_what_the_loader_maps() {
    for elf in kinds() {
        let built = elf.build();
        let image = normalise(&built.file).unwrap();
        assert_eq!(image.bytes(), expected(&elf, &built), "{elf:?}");
        assert_eq!(image.digest(), Digest::of(image.bytes()));
        assert_eq!(image.len(), built.loads[1].end);
        assert_eq!(image.machine().bits, if elf.wide { 64 } else { 32 });
        assert_eq!(image.machine().big_endian, elf.big_endian);
    }
}

#[test]
fn imaging_an_image_changes_nothing() {
    for elf in kinds() {
        let once = normalise(&elf.build().file).unwrap();
        let twice = normalise(once.bytes()).unwrap();
        assert_eq!(once.bytes(), twice.bytes());
        assert_eq!(once.header(), twice.header());
    }
}

#[test]
fn the_table_is_found_in_every_object() {
    let header = TableHeader {
        abi_major: 0x0102,
        abi_minor: 0x0304,
        size: 0x0506_0708,
        ..TableHeader::CURRENT
    };
    for kind in kinds() {
        let elf = Elf { header, ..kind };
        let image = normalise(&elf.build().file).unwrap();
        assert_eq!(image.header(), Ok(header), "{elf:?}");
    }
}

#[test]
fn a_machine_has_a_readable_name() {
    let name = |elf: Elf| normalise(&elf.build().file).unwrap().machine().to_string();
    assert_eq!(name(Elf::default()), "x86_64 (64-bit little-endian)");
    let s390 = Elf {
        big_endian: true,
        machine: 22,
        ..Elf::default()
    };
    assert_eq!(name(s390), "s390 (64-bit big-endian)");
    let arm = Elf {
        wide: false,
        machine: 40,
        ..Elf::default()
    };
    assert_eq!(name(arm), "arm (32-bit little-endian)");
    let unheard_of = Elf {
        machine: 0xfffe,
        ..Elf::default()
    };
    assert_eq!(name(unheard_of), "machine 65534 (64-bit little-endian)");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_native_machine_is_this_programs_machine() {
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let machine = normalise(&file).unwrap().machine();
    assert_eq!(Machine::native(), Some(machine));
}

#[test]
fn anything_but_a_shared_object_is_refused() {
    let good = Elf::default().build();
    let changed = |at: usize, byte: u8| {
        let mut file = good.file.clone();
        file[at] = byte;
        normalise(&file).unwrap_err().to_string()
    };
    let segment = |index: usize, field: usize| good.program_headers + 56 * index + field;

    let short = |len: usize| normalise(&good.file[..len]).unwrap_err().to_string();
    assert_eq!(short(0), "the file is empty");
    assert_eq!(
        short(5),
        "truncated: the ELF header ends at byte 52, but the file has 5 bytes"
    );
    assert_eq!(
        short(60),
        "truncated: the ELF header ends at byte 64, but the file has 60 bytes"
    );
    assert_eq!(
        short(100),
        "truncated: the table of program headers ends at byte 288, but the file has 100 bytes",
    );
    assert_eq!(
        short(400),
        format!(
            "truncated: loadable segment 0 ends at byte {}, but the file has 400 bytes",
            good.loads[0].end
        ),
    );
    assert_eq!(
        short(good.loads[1].end - 1),
        format!(
            "truncated: loadable segment 1 ends at byte {}, but the file has {} bytes",
            good.loads[1].end,
            good.loads[1].end - 1
        ),
    );
    assert_eq!(
        normalise(b"#!/bin/sh\n").unwrap_err().to_string(),
        "not an ELF file"
    );
    assert_eq!(changed(0, 0), "not an ELF file");
    assert_eq!(
        changed(4, 3),
        "not an ELF file that this hotmerge understands: its class is 3"
    );
    assert_eq!(
        changed(5, 0),
        "not an ELF file that this hotmerge understands: its byte order is 0"
    );
    assert_eq!(
        changed(6, 2),
        "not an ELF file that this hotmerge understands: its version is 2"
    );
    assert_eq!(
        changed(16, 2),
        "not a shared object: its ELF type is ET_EXEC; plugins are built as `cdylib`"
    );
    assert_eq!(
        changed(16, 77),
        "not a shared object: its ELF type is 77; plugins are built as `cdylib`"
    );
    assert_eq!(changed(56, 0), "no loadable segment");
    assert_eq!(
        changed(56, 129),
        "malformed ELF: it has 129 program headers; at most 128 are accepted"
    );
    assert_eq!(
        changed(54, 55),
        "malformed ELF: its program headers have 55 bytes instead of 56"
    );
    assert_eq!(
        changed(32, 8),
        "malformed ELF: its program headers overlap the ELF header"
    );
    // p_memsz, p_align, p_vaddr of the second loadable segment.
    assert_eq!(
        changed(segment(1, 40), 0),
        "malformed ELF: loadable segment 1 is larger in the file than in memory"
    );
    assert_eq!(
        changed(segment(1, 48), 3),
        "malformed ELF: loadable segment 1 has an alignment that is not a power of two"
    );
    assert_eq!(
        changed(segment(1, 16), 0x77),
        "malformed ELF: loadable segment 1 lies differently in the file and in memory"
    );
    assert_eq!(
        changed(segment(1, 17), 0),
        "malformed ELF: loadable segment 1 overlaps the one before it in memory"
    );
    let mut endless = good.file.clone();
    endless[segment(1, 40)..segment(1, 48)].fill(0xff);
    assert_eq!(
        normalise(&endless).unwrap_err().to_string(),
        "malformed ELF: loadable segment 1 ends beyond the address space"
    );
}

#[test]
fn no_loadable_segment_is_refused() {
    let built = Elf::default().build();
    let mut file = built.file;
    for index in 0..2 {
        file[built.program_headers + 56 * index] = 6;
    }
    assert_eq!(normalise(&file).unwrap_err(), ImageError::NoLoad);
}

#[test]
fn an_object_without_a_table_is_refused() {
    let refused = |elf: Elf, change: fn(&mut Built)| {
        let mut built = elf.build();
        change(&mut built);
        normalise(&built.file)
            .unwrap()
            .header()
            .unwrap_err()
            .to_string()
    };
    for kind in kinds() {
        let other = Elf {
            symbol: "another_plugin",
            ..kind.clone()
        };
        assert_eq!(
            refused(other, |_| {}),
            "not a hotmerge plugin: it exports no `hotmerge_plugin`; \
             name the plugin type in `hotmerge_sdk::export_plugin!`"
        );
        assert_eq!(
            refused(kind.clone(), |built| built.file[built.table] = b'H'),
            "not a hotmerge plugin: `hotmerge_plugin` \
             does not begin with the magic number `hotmerge`"
        );
        let small = Elf {
            header: TableHeader {
                size: 15,
                ..TableHeader::CURRENT
            },
            ..kind
        };
        assert_eq!(
            refused(small, |_| {}),
            "not a hotmerge plugin: `hotmerge_plugin` is smaller than a table's header"
        );
    }
}

#[test]
fn incompatible_contract_versions_are_refused() {
    let header = |abi_major, abi_minor| TableHeader {
        abi_major,
        abi_minor,
        ..TableHeader::CURRENT
    };
    assert_eq!(check_abi(&TableHeader::CURRENT), Ok(()));
    assert_eq!(
        check_abi(&header(0, 9)).unwrap_err().to_string(),
        "built for ABI 0.9, but this host speaks 1.2; rebuild the plugin with the SDK of this host"
    );
    for (major, minor) in [(1, 9), (2, 0)] {
        assert_eq!(
            check_abi(&header(major, minor)).unwrap_err().to_string(),
            format!(
                "built for ABI {major}.{minor}, which is newer than this host's 1.2; \
                 upgrade and restart the host, or rebuild the plugin with an older SDK"
            )
        );
    }
}

#[test]
fn a_table_has_the_size_of_its_abi() {
    for (abi_minor, right) in [(0, 72), (1, 72), (2, 88)] {
        let header = |size| TableHeader {
            size,
            abi_minor,
            ..TableHeader::CURRENT
        };
        assert_eq!(check_abi(&header(right)), Ok(()));
        for size in [0, 16, right - 1, right + 1, 4096, u32::MAX] {
            let refused = check_abi(&header(size)).unwrap_err().to_string();
            let words = format!("its table has {size} bytes and one of this ABI has {right}");
            assert!(refused.starts_with(&words), "{refused}");
        }
    }
}

#[test]
fn every_bit_of_the_image_is_hashed() {
    for elf in kinds() {
        let built = elf.build();
        let original = normalise(&built.file).unwrap();
        for bit in 0..built.file.len() * 8 {
            let mut file = built.file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            match normalise(&file) {
                Ok(image) if is_visible(&elf, &built, bit / 8) => {
                    assert_ne!(image.digest(), original.digest(), "bit {bit} of {elf:?}");
                }
                Ok(image) => assert_eq!(image.bytes(), original.bytes(), "bit {bit} of {elf:?}"),
                Err(_) => assert!(
                    bit / 8 < built.program_headers + 4 * 56,
                    "bit {bit} of {elf:?}"
                ),
            }
        }
    }
}

#[test]
fn a_truncated_file_is_refused() {
    for elf in kinds() {
        let built = elf.build();
        for len in 0..built.loads[1].end {
            assert!(
                normalise(&built.file[..len]).is_err(),
                "{len} bytes of {elf:?}"
            );
        }
        let whole = normalise(&built.file).unwrap().digest();
        for len in built.loads[1].end..built.file.len() {
            assert_eq!(normalise(&built.file[..len]).unwrap().digest(), whole);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_input_never_panics(
        kind in 0_usize..8,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12),
        len in any::<proptest::sample::Index>(),
    ) {
        let mut file = kinds().nth(kind).unwrap().build().file;
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        file.truncate(len.index(file.len() * 4).min(file.len()));
        if let Ok(image) = Image::normalise(file) {
            let _ = image.header();
            let again = normalise(image.bytes()).unwrap();
            prop_assert_eq!(again.bytes(), image.bytes());
        }
    }
}

#[test]
fn only_the_images_parts_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let fd = std::fs::File::open(dir.path()).unwrap();
    for (index, elf) in kinds().enumerate() {
        let elf = Elf {
            code: vec![7; 10_000],
            tail: vec![9; 100_000],
            ..elf
        };
        let (name, built) = (format!("{index}.so"), elf.build());
        std::fs::write(dir.path().join(&name), &built.file).unwrap();
        let image = normalise(&built.file).unwrap();
        // The limit is for the image, not for the file.
        let (read, stamp) = Image::read(&fd, &name, image.len() as u64).unwrap();
        assert_eq!(read.bytes(), image.bytes());
        assert_eq!(stamp.size, built.file.len() as u64);
        assert_eq!(
            Image::read(&fd, &name, image.len() as u64 - 1)
                .unwrap_err()
                .to_string(),
            format!(
                "`{name}` has {} bytes; at most {} are accepted",
                image.len(),
                image.len() - 1
            ),
        );
    }
}

#[test]
fn distant_program_headers_are_found() {
    let built = Elf::default().build();
    let mut file = built.file;
    let headers = file[built.program_headers..][..4 * 56].to_vec();
    file.resize(20_000, 0);
    file[32..40].copy_from_slice(&20_000_u64.to_le_bytes());
    file.extend(headers);
    file.extend([1; 1000]);

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("far.so"), &file).unwrap();
    let fd = std::fs::File::open(dir.path()).unwrap();
    let image = normalise(&file).unwrap();
    assert_eq!(image.len(), 20_000 + 4 * 56);
    let (read, _) = Image::read(&fd, "far.so", 1 << 20).unwrap();
    assert_eq!(read.bytes(), image.bytes());
}
