//! `plugin.meta` as text: its one form, and everything that is refused.

mod support;

use std::fs::{self, File};

use hotmerge_meta::{
    Digest, META_FILE, Meta, MetaError, PluginMeta, Requires, Wants, package::MAX_META_BYTES,
};
use proptest::prelude::*;
use support::{Elf, meta};

const HASH: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn plugin(name: &str) -> PluginMeta {
    PluginMeta {
        name: name.parse().unwrap(),
        version: "1.2.3-rc.1+build".parse().unwrap(),
        file: format!("lib{name}.so").parse().unwrap(),
        hash: Digest::of(b"abc"),
        size: 318_816,
        abi: "1.0".parse().unwrap(),
        target: "x86_64-unknown-linux-gnu".to_owned(),
        handover: Default::default(),
        requires: Vec::new(),
        wants: Wants::default(),
    }
}

fn text() -> String {
    Meta::new(vec![plugin("counter")]).unwrap().to_toml()
}

fn refusal(text: &str) -> String {
    Meta::parse(text).unwrap_err().to_string()
}

#[test]
fn the_smallest_file() {
    let expected = format!(
        r#"# Written by hotmerge's build driver; do not edit.
format = 1

[[plugin]]
name = "counter"
version = "1.2.3-rc.1+build"
file = "libcounter.so"
hash = "{HASH}"
size = 318816
abi = "1.0"
target = "x86_64-unknown-linux-gnu"
"#
    );
    assert_eq!(text(), expected);
    assert_eq!(Meta::parse(&expected).unwrap().plugin, [plugin("counter")]);
}

#[test]
fn the_largest_entry() {
    let mut entry = plugin("announce");
    entry.requires = vec![Requires {
        name: "counter".parse().unwrap(),
        version: ">=0.1, <2".parse().unwrap(),
        on_replace: Default::default(),
    }];
    entry.wants = Wants {
        fs: vec!["/etc/hotmerge".to_owned()],
        net: true,
    };
    let meta = Meta::new(vec![plugin("counter"), entry]).unwrap();
    let text = meta.to_toml();
    let tail = r#"
[[plugin.requires]]
name = "counter"
version = ">=0.1, <2"

[plugin.wants]
fs = ["/etc/hotmerge"]
net = true
"#;
    assert!(text.contains(tail), "{text}");
    assert_eq!(Meta::parse(&text).unwrap(), meta);
    assert_eq!(meta.plugin[0].name, "announce", "sorted by name");
}

#[test]
fn an_invalid_meta_is_refused_with_a_reason() {
    let with = |from: &str, to: &str| {
        assert!(text().contains(from), "{from}");
        refusal(&text().replace(from, to))
    };
    assert_eq!(refusal(""), "`plugin.meta` is empty");
    assert_eq!(
        refusal("\n  \n# only a comment\n"),
        "`plugin.meta` is empty"
    );
    assert_eq!(
        refusal("x = 1\n"),
        "`plugin.meta` line 1: missing field `format`"
    );
    assert_eq!(
        with("format = 1", "format = 2"),
        "`plugin.meta` has format 2, which this hotmerge does not understand (1); \
         it is newer: upgrade the host"
    );
    assert_eq!(
        with("format = 1", "format = 0"),
        "`plugin.meta` has format 0, which this hotmerge does not understand (1); \
         build the plugin again"
    );
    // A newer format may have any fields: the format is what is reported.
    assert!(refusal("format = 7\nsomething = { new = true }\n").contains("has format 7"));
    assert!(with("format = 1", "format = '1'").starts_with("`plugin.meta` line 2: invalid type"));
    assert!(with("size = 318816", "size = 1\nmode = 7").contains("line 10: unknown field `mode`"));
    assert!(with("size = 318816", "size = -1").contains("line 9: invalid value"));
    assert!(with("size = 318816\n", "").contains("missing field `size`"));
    assert!(with("\"counter\"", "\"../x\"").contains("line 5: \"../x\" is not a plugin name"));
    assert!(
        with("libcounter.so", "../x.so").contains("line 7: \"../x.so\" is not a plugin file name")
    );
    assert!(with("libcounter.so", "a\\nb.so").contains("control characters may not be in it"));
    assert!(with("sha256:ba", "sha256:BA").contains("line 8: a hash must be `sha256:`"));
    assert!(with("\"1.0\"", "\"1\"").contains("line 10: an ABI must be `major.minor`"));
    assert!(with("\"1.0\"", "\"01.0\"").contains("an ABI must be"));
    assert!(with("\"1.0\"", "\"1.65536\"").contains("an ABI must be"));
    assert!(with("1.2.3-rc.1+build", "1.2").contains("line 6: "));
    assert_eq!(
        with("x86_64-unknown-linux-gnu", "x86 64"),
        "`plugin.meta` gives plugin `counter` the target \"x86 64\", which must be a target triple"
    );
    assert_eq!(
        refusal("format = 1\nplugin = []\n"),
        "`plugin.meta` names no plugin"
    );
    assert!(refusal("format = 1\n").contains("missing field `plugin`"));
    assert!(refusal("format = 1\n[[plugin\n").starts_with("`plugin.meta` line 2: "));
    assert!(!refusal("format = 1\n[[plugin\n").contains('\n'));
    let escape = with("size = 318816", "\"\\u001b[31m\\n\" = 1");
    assert!(escape.contains("unknown field `\\u{1b}[31m; `"), "{escape}");
}

#[test]
fn duplicate_names_or_files_are_refused() {
    let twice = |change: fn(&mut PluginMeta)| {
        let mut other = plugin("counter");
        change(&mut other);
        Meta::new(vec![plugin("counter"), other])
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        twice(|_| {}),
        "`plugin.meta` names the plugin `counter` twice"
    );
    assert_eq!(
        twice(|other| other.name = "other".parse().unwrap()),
        "`plugin.meta` gives the file `libcounter.so` to two plugins"
    );
    let doubled = format!("{}{}", text(), text().split_once("\n\n").unwrap().1);
    assert_eq!(
        refusal(&doubled),
        "`plugin.meta` names the plugin `counter` twice"
    );
}

#[test]
fn invalid_wants_are_refused() {
    let refused = |change: fn(&mut PluginMeta)| {
        let mut entry = plugin("counter");
        change(&mut entry);
        Meta::new(vec![entry]).unwrap_err().to_string()
    };
    for path in ["relative", "", "/a/../b", "/a\n"] {
        let mut entry = plugin("counter");
        entry.wants.fs = vec![path.to_owned()];
        let error = Meta::new(vec![entry]).unwrap_err();
        assert!(
            matches!(
                error,
                MetaError::Value {
                    field: "wants.fs",
                    ..
                }
            ),
            "{path:?}"
        );
    }
    assert!(
        refused(|entry| {
            entry.requires = vec![Requires {
                name: "counter".parse().unwrap(),
                version: "*".parse().unwrap(),
                on_replace: Default::default(),
            }];
        })
        .contains("must name another plugin")
    );
    assert!(refused(|entry| entry.size = u64::MAX).contains("must be a size in bytes"));
}

#[test]
fn the_size_is_checked_before_parsing() {
    let dir = tempfile::tempdir().unwrap();
    let read = |contents: &[u8]| {
        fs::write(dir.path().join(META_FILE), contents).unwrap();
        Meta::read(File::open(dir.path()).unwrap())
    };
    let limit = MAX_META_BYTES as usize;
    let mut text = text();
    text.push_str(&format!("# {}\n", "x".repeat(limit - text.len() - 3)));
    assert_eq!(text.len(), limit);
    read(text.as_bytes()).unwrap();
    text.push('\n');
    assert_eq!(
        read(text.as_bytes()).unwrap_err().to_string(),
        "`plugin.meta` has 65537 bytes; at most 65536 are accepted"
    );
    assert_eq!(
        refusal(&text),
        "`plugin.meta` has 65537 bytes; at most 65536 are accepted"
    );
    assert_eq!(
        read(b"format = 1\n\xff").unwrap_err().to_string(),
        "`plugin.meta` is not UTF-8 from byte 11 on"
    );
    assert_eq!(read(b"").unwrap_err().to_string(), "`plugin.meta` is empty");
}

#[test]
fn a_missing_file_or_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        Meta::read_path(dir.path()).unwrap_err().to_string(),
        "`plugin.meta` does not exist"
    );
    let missing = dir.path().join("package");
    assert_eq!(
        Meta::read_path(&missing).unwrap_err().to_string(),
        format!("`{}` does not exist", missing.display())
    );
    fs::write(&missing, "").unwrap();
    assert!(
        Meta::read_path(&missing)
            .unwrap_err()
            .to_string()
            .contains("not a directory")
    );
}

#[test]
fn a_mismatched_entry_names_the_difference() {
    let file = Elf::default().build().file;
    let image = |file: &[u8]| hotmerge_meta::Image::normalise(file.to_vec()).unwrap();
    let entry = &meta(&[("one", "libone.so", &file)]).plugin[0];
    assert_eq!(entry.check(&image(&file)), Ok(()));

    let other = Elf {
        code: b"else".to_vec(),
        ..Elf::default()
    };
    let error = entry.check(&image(&other.build().file)).unwrap_err();
    assert!(
        error.to_string().ends_with("build and stage it again"),
        "{error}"
    );
}

fn any_plugin() -> impl Strategy<Value = PluginMeta> {
    let version = (any::<u64>(), any::<u64>(), any::<u64>());
    let wants = (
        proptest::collection::vec("/[ -~&&[^/]]{1,9}é?", 0..3),
        any::<bool>(),
    );
    let requires = proptest::collection::vec("[a-z0-9][a-z0-9_-]{0,9}", 0..3);
    (
        "[a-z0-9][a-z0-9_-]{0,63}",
        version,
        0..=i64::MAX as u64,
        any::<[u16; 2]>(),
        wants,
        requires,
    )
        .prop_map(
            |(name, (major, minor, patch), size, abi, (fs, net), requires)| PluginMeta {
                version: semver::Version::new(major, minor, patch),
                hash: Digest::of(name.as_bytes()),
                size,
                abi: hotmerge_meta::Abi {
                    major: abi[0],
                    minor: abi[1],
                },
                requires: requires
                    .into_iter()
                    .filter(|other| *other != name)
                    .map(|name| Requires {
                        name: name.parse().unwrap(),
                        version: "^1.2".parse().unwrap(),
                        on_replace: Default::default(),
                    })
                    .collect(),
                wants: Wants { fs, net },
                ..plugin(&name)
            },
        )
}

proptest! {
    #[test]
    fn written_data_is_read_back(plugins in proptest::collection::vec(any_plugin(), 1..5)) {
        match Meta::new(plugins) {
            Ok(meta) => {
                let text = meta.to_toml();
                prop_assert_eq!(&Meta::parse(&text).unwrap(), &meta);
                prop_assert_eq!(Meta::parse(&text).unwrap().to_toml(), text);
            }
            Err(error) => prop_assert!(
                matches!(error, MetaError::SameName(_) | MetaError::Value { .. }),
                "{}", error
            ),
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
        let _ = Meta::parse(&text);
        let _ = Meta::from_bytes(&bytes);
    }

    #[test]
    fn damaged_input_never_panics(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9),
    ) {
        let mut bytes = text().into_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Err(error) = Meta::from_bytes(&bytes) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
