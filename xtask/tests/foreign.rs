//! Plugins in other languages, built by a command of their author's.

mod common;

use std::fs;

use common::{HELLO, Scratch, field, inode, lines, one_plugin, repository};

const LISTED: &str = "\n[workspace.metadata.hotmerge]\nforeign = [\"foreign/tally\"]\n";

/// Adds this repository's sample in C to a workspace.
fn with_tally(scratch: Scratch) -> Scratch {
    let sample = repository().join("plugins/samples/tally");
    let to = scratch.path("plugins/foreign/tally");
    for file in ["Makefile", "hotmerge.toml", "tally.c"] {
        fs::create_dir_all(&to).unwrap();
        fs::copy(sample.join(file), to.join(file)).unwrap();
    }
    let manifest = fs::read_to_string(scratch.path("plugins/Cargo.toml")).unwrap();
    scratch.write(
        "plugins/Cargo.toml",
        manifest.replace("members = [\"crates/*\"]\n", "") + LISTED,
    );
    scratch
}

/// What the driver says of a failure, and that nothing was staged.
fn fails(scratch: &Scratch, code: i32, words: &[&str]) {
    let (ended, said) = common::failure(&mut scratch.build_plugins());
    assert_eq!(ended, code, "{said}");
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
    assert!(!scratch.staged("tally").exists());
}

#[test]
fn a_c_plugin_is_staged_as_any() {
    let scratch = with_tally(Scratch::new());
    let built = lines(&mut scratch.build_plugins());
    assert_eq!(field(&built, "tally", "action"), "staged");
    assert_eq!(field(&built, "tally", "version"), "0.1.0");
    let meta = fs::read_to_string(scratch.staged("tally/plugin.meta")).unwrap();
    assert!(meta.contains("file = \"libtally.so\""), "{meta}");
    assert!(meta.contains(&field(&built, "tally", "hash")), "{meta}");

    let file = scratch.staged("tally/libtally.so");
    let before = inode(&file);
    let again = lines(&mut scratch.build_plugins());
    assert_eq!(field(&again, "tally", "action"), "unchanged");
    assert_eq!(inode(&file), before);

    // A comment is no change, another answer is.
    scratch.edit(
        "plugins/foreign/tally/tally.c",
        "/* Says why",
        "/* Says\nwhy",
    );
    let again = lines(&mut scratch.build_plugins());
    assert_eq!(field(&again, "tally", "action"), "unchanged");
    scratch.edit("plugins/foreign/tally/tally.c", "*step = 1", "*step = 2");
    let again = lines(&mut scratch.build_plugins());
    assert_eq!(field(&again, "tally", "action"), "staged");
}

#[test]
fn directories_and_debug_information_do_not_matter() {
    let usual = lines(&mut with_tally(Scratch::new()).build_plugins());
    let other = with_tally(Scratch::at("quite/another_place"));
    let built = lines(other.build_plugins().env("CFLAGS", "-O2 -g"));
    assert!(common::holds(
        &other.staged("tally/libtally.so"),
        ".debug_info"
    ));
    assert_eq!(
        field(&built, "tally", "hash"),
        field(&usual, "tally", "hash")
    );
}

#[test]
fn plugins_of_both_kinds_are_built_together() {
    let scratch = one_plugin();
    scratch.plugin("two", "", HELLO);
    let manifest = fs::read_to_string(scratch.path("plugins/Cargo.toml")).unwrap();
    let scratch = with_tally(scratch);
    scratch.write("plugins/Cargo.toml", manifest + LISTED);
    let built = lines(&mut common::dev(&scratch));
    let names: Vec<_> = built.iter().map(|line| line["plugin"].clone()).collect();
    assert_eq!(names, ["one", "tally", "two"]);
    let built = lines(common::dev(&scratch).args(["--plugin", "tally"]));
    assert_eq!(built.len(), 1, "{built:?}");
    assert_eq!(field(&built, "tally", "action"), "unchanged");
}

#[test]
fn an_unlisted_plugin_is_removed() {
    let scratch = one_plugin();
    let manifest = fs::read_to_string(scratch.path("plugins/Cargo.toml")).unwrap();
    let scratch = with_tally(scratch);
    scratch.write("plugins/Cargo.toml", manifest.clone() + LISTED);
    lines(&mut common::dev(&scratch));
    scratch.write("plugins/Cargo.toml", manifest);
    let built = lines(&mut common::dev(&scratch));
    assert_eq!(field(&built, "tally", "action"), "removed");
    assert!(!scratch.staged("tally").exists());
}

#[test]
fn a_command_that_fails_stages_nothing() {
    let scratch = with_tally(Scratch::new());
    scratch.edit(
        "plugins/foreign/tally/tally.c",
        "atomic_int_fast64_t sum;",
        "nonsense",
    );
    fails(
        &scratch,
        3,
        &[
            "nonsense",
            "`make` failed to build `tally`",
            "nothing was staged",
        ],
    );
}

#[test]
fn a_wrong_declaration_is_named() {
    let scratch = with_tally(Scratch::new());
    let declaration = "plugins/foreign/tally/hotmerge.toml";
    for (from, to, words) in [
        ("[\"make\"]", "[]", &["`command` is empty"][..]),
        (
            "[]",
            "[\"true\"]",
            &["made no", "libtally.so", "HOTMERGE_FILE"],
        ),
        (
            "[\"true\"]",
            "[\"no-such-program\"]",
            &["no-such-program", "`tally`"],
        ),
        ("command", "comand", &["hotmerge.toml", "comand"]),
    ] {
        scratch.edit(declaration, from, to);
        fails(&scratch, 1, words);
    }
    fs::remove_file(scratch.path(declaration)).unwrap();
    fails(&scratch, 1, &["failed to read", "tally/hotmerge.toml"]);
}
