//! The headers, the sources, the list of symbols and the library say the same.

use std::{collections::BTreeSet, fs, process::Command};

use hotmerge_tests::{SOON, repository, run};

use crate::library::library;

/// Writes the header instead of comparing it.
const UPDATE: &str = "HOTMERGE_UPDATE_HEADER";

#[test]
fn the_headers_are_those_of_the_sources() {
    is_made_of("host/capi", "host/capi/include/hotmerge.h");
    is_made_of("plugins/abi", "plugins/abi/include/hotmerge/plugin.h");
    // A module of Go's has all that it needs within itself.
    is_made_of("plugins/abi", "plugins/go/include/hotmerge/plugin.h");
}

/// Compares a header that is checked in with what the sources declare.
fn is_made_of(sources: &str, header: &str) {
    let sources = repository().join(sources);
    let header = repository().join(header);
    let config = cbindgen::Config::from_file(sources.join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new()
        .with_crate(&sources)
        .with_config(config)
        .generate()
        .expect("the sources declare an interface in C");
    let mut made = Vec::new();
    bindings.write(&mut made);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&header, &made).unwrap();
    }
    let made = String::from_utf8(made).unwrap();
    let kept = fs::read_to_string(&header).unwrap_or_default();
    assert!(
        kept == made,
        "`{}` is out of date: run this test with {UPDATE}=1",
        header.display()
    );
}

#[test]
fn the_library_exports_what_the_header_declares() {
    let header = fs::read_to_string(library().join("hotmerge.h")).unwrap();
    let declared: BTreeSet<_> = header
        .split(|it: char| !it.is_ascii_alphanumeric() && it != '_')
        .filter(|word| word.starts_with("hm_"))
        .filter(|word| header.contains(&format!("{word}(")))
        .collect();
    let mut list = Command::new("nm");
    list.args(["--dynamic", "--defined-only", "--with-symbol-versions"]);
    list.arg(library().join("libhotmerge.so"));
    let listed = run(&mut list, SOON).ok();
    let listed = listed.text();
    let exported: BTreeSet<_> = listed
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .filter(|symbol| *symbol != "HOTMERGE_0")
        .map(|symbol| {
            let versioned = symbol.strip_suffix("@@HOTMERGE_0");
            versioned.unwrap_or_else(|| panic!("`{symbol}` has no version"))
        })
        .collect();
    assert_eq!(exported, declared);
}

#[test]
fn programs_find_the_library_by_its_major() {
    let mut read = Command::new("readelf");
    read.arg("--dynamic").arg(library().join("libhotmerge.so"));
    let dynamic = run(&mut read, SOON).ok();
    let dynamic = dynamic.text();
    assert!(dynamic.contains("soname: [libhotmerge.so.0]"), "{dynamic}");
    // Its threads would run on in memory that is gone.
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}
