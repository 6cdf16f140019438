//! What `hotmerge inspect` shows of a file is what is in it: read here by its section headers,
//! which `inspect` does not look at.

use std::{collections::BTreeSet, fs, path::PathBuf};

use hotmerge_tests::{Lab, Variant, reader};
use object::{
    Endianness,
    elf::{self, FileHeader64},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _, SectionTable, Sym as _},
};
use serde_json::{Value, json};

type Header = FileHeader64<Endianness>;

/// What the fixture asks for beyond computing.
const GRANTS: [&str; 4] = ["--allow", "net", "--allow", "fs:/srv:ro"];

/// A plugin's file, by its sections.
struct Truth {
    /// Access, address and size of each.
    segments: Vec<(String, u64, u64)>,
    needed: Vec<String>,
    imports: BTreeSet<String>,
}

impl Truth {
    fn of(variant: &Variant) -> Self {
        let data = &variant.bytes[..];
        let header = Header::parse(data).expect("it is ELF");
        let endian = header.endian().expect("it says");
        let headers = header.program_headers(endian, data).expect("it is whole");
        let loads = headers
            .iter()
            .filter(|it| it.p_type(endian) == elf::PT_LOAD);
        let segment = |header: &elf::ProgramHeader64<Endianness>| {
            let access = match header.p_flags(endian) {
                elf::PF_R => "r--",
                flags if flags == elf::PF_R | elf::PF_W => "rw-",
                flags if flags == elf::PF_R | elf::PF_X => "r-x",
                other => panic!("no plugin is built like this: {other:?}"),
            };
            (
                access.to_owned(),
                header.p_vaddr(endian),
                header.p_memsz(endian),
            )
        };
        let sections = header.sections(endian, data).expect("it is whole");
        Self {
            segments: loads.map(segment).collect(),
            needed: needed(&sections, endian, data),
            imports: imports(&sections, endian, data),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it is text")
}

fn needed(sections: &SectionTable<'_, Header>, endian: Endianness, data: &[u8]) -> Vec<String> {
    let dynamic = sections.dynamic(endian, data).expect("it is whole");
    let (entries, link) = dynamic.expect("it has a dynamic section");
    let strings = sections.strings(endian, data, link).expect("it is whole");
    let needed = entries
        .iter()
        .filter(|it| it.d_tag(endian) == elf::DT_NEEDED);
    let name = |at: u64| strings.get(u32::try_from(at).expect("it is small"));
    needed
        .map(|it| text(name(it.d_val(endian)).expect("it has a name")))
        .collect()
}

fn imports(
    sections: &SectionTable<'_, Header>,
    endian: Endianness,
    data: &[u8],
) -> BTreeSet<String> {
    let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM);
    let symbols = symbols.expect("it is whole");
    let undefined = symbols
        .iter()
        .filter(|symbol| symbol.is_undefined(endian) && symbol.st_name(endian) != 0);
    undefined
        .map(|it| text(it.name(endian, symbols.strings()).expect("it has a name")))
        .collect()
}

/// The fixture in place, and where its file is.
fn in_place(lab: &Lab) -> (Truth, PathBuf) {
    let variant = reader();
    lab.put(&variant);
    (
        Truth::of(&variant),
        lab.package("reader").file_path(&variant),
    )
}

fn strings(value: &Value) -> Vec<&str> {
    let all = value.as_array().expect("it is a list").iter();
    all.map(|it| it.as_str().expect("it is text")).collect()
}

#[test]
fn inspect_lists_segments_libraries_and_grouped_imports() {
    let lab = Lab::new();
    let (truth, file) = in_place(&lab);
    let arguments = [&["inspect"], &GRANTS[..], &[file.to_str().unwrap()]].concat();
    let shown = lab.hotmerge(arguments).ok().text();
    let lines = |kind: &str| -> Vec<&str> {
        let rest = |line| str::strip_prefix(line, kind);
        shown.lines().filter_map(rest).map(str::trim).collect()
    };
    let segments = truth.segments.iter();
    let segments: Vec<_> = segments
        .map(|(access, address, bytes)| format!("{access}  {address:#x}  {bytes} bytes"))
        .collect();
    assert_eq!(lines("segment"), segments);
    assert_eq!(lines("needs"), truth.needed);
    assert!(lines("needs").contains(&"libc.so.6"), "{shown}");
    let groups = lines("imports");
    let named = groups.iter().map(|line| line.split_once(": ").unwrap().1);
    let named: BTreeSet<_> = named.flat_map(str::split_whitespace).collect();
    assert_eq!(named, truth.imports.iter().map(String::as_str).collect());
    for (group, symbol) in [("memory", "malloc"), ("network", "connect")] {
        let found = groups.iter().any(|line| {
            let (name, symbols) = line.split_once(": ").unwrap();
            name == group && symbols.split(' ').any(|it| it == symbol)
        });
        assert!(found, "no `{symbol}` in `{group}`: {shown}");
    }
    assert!(shown.ends_with("\nallowed\n"), "{shown}");
}

#[test]
fn inspect_json_is_one_object() {
    let lab = Lab::new();
    let (truth, file) = in_place(&lab);
    let arguments = ["inspect", "--json", file.to_str().unwrap()];
    let json = lab.hotmerge([&arguments, &GRANTS[..]].concat()).ok().json();
    let segments = truth.segments.iter().map(
        |(access, address, bytes)| json!({ "access": access, "address": address, "bytes": bytes }),
    );
    assert_eq!(json["file"]["segments"], segments.collect::<Value>());
    assert_eq!(strings(&json["file"]["needed"]), truth.needed);
    let imports: Vec<_> = truth.imports.iter().map(String::as_str).collect();
    assert_eq!(strings(&json["file"]["imports"]), imports);
    let groups = json["groups"].as_object().expect("by name");
    let mut grouped: Vec<_> = groups.values().flat_map(strings).collect();
    grouped.sort_unstable();
    assert_eq!(grouped, imports, "each is in one group");
    assert!(strings(&groups["network"]).contains(&"connect"), "{json}");
    assert_eq!(json["objections"], json!([]));
    // What nothing was granted to is refused, and shown all the same.
    let refused = lab.hotmerge(arguments).ended_with(5).json();
    assert_eq!(refused["groups"], json["groups"]);
    let expected = json!({
        "subject": "connect",
        "rule": "the network is not granted to it (with `net` in `allow`)",
        "grant": "net",
        "likely": "`std::net`",
    });
    let mut objections = refused["objections"].as_array().expect("a list").iter();
    assert!(objections.any(|it| *it == expected), "{refused}");
}

#[test]
fn inspect_marks_symbols_of_no_group() {
    let lab = Lab::new();
    let (truth, file) = in_place(&lab);
    let (policy, config) = (lab.path("policy.toml"), lab.path("config.toml"));
    let group = "[[group]]\nname = \"own\"\nwhen = \"always\"\nreason = \"a test\"\n";
    fs::write(&policy, format!("{group}symbols = [\"mal*\"]\n")).unwrap();
    fs::write(&config, format!("symbol_policy = {policy:?}\n")).unwrap();
    let arguments = ["inspect", "--json", file.to_str().unwrap(), "--config"];
    let ran = lab.hotmerge([&arguments[..], &[config.to_str().unwrap()]].concat());
    let groups = ran.json()["groups"].clone();
    assert_eq!(groups["own"], json!(["malloc"]));
    let rest = truth.imports.iter().filter(|it| *it != "malloc");
    let rest: Vec<_> = rest.map(String::as_str).collect();
    assert_eq!(strings(&groups["in no group"]), rest);
}
