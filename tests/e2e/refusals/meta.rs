//! What a `plugin.meta` may not say.

use hotmerge_meta::{META_FILE, Meta};
use std::fs;

use hotmerge_tests::Package;

use crate::bench::{Bench, a_problem, a_refusal, two};

#[test]
fn a_missing_meta() {
    let spoil = |package: &Package| fs::remove_file(package.meta_path()).unwrap();
    a_problem(spoil, &["no plugin.meta", "stage the package again"]);
}

#[test]
fn an_empty_meta() {
    a_problem(|package| package.write_meta(""), &[META_FILE, "is empty"]);
}

#[test]
fn an_oversized_meta() {
    let text = format!("# {}\n", "x".repeat(64 * 1024));
    a_problem(
        |package| package.write_meta(&text),
        &[META_FILE, "at most 65536"],
    );
}

#[test]
fn a_meta_with_invalid_toml() {
    a_problem(
        |package| package.write_meta("format = 1\n\n[[plugin]\n"),
        &[META_FILE, "line 3"],
    );
}

#[test]
fn a_meta_with_invalid_utf8() {
    a_problem(
        |package| package.write_meta(b"format = 1\n\xff\n"),
        &[META_FILE, "not UTF-8", "byte 11"],
    );
}

#[test]
fn a_meta_of_a_newer_format() {
    a_problem(
        |package| package.write_meta("format = 2\nfuture = true\n"),
        &[META_FILE, "format 2", "upgrade the host"],
    );
}

#[test]
fn a_meta_with_an_unknown_field() {
    let text = Meta::new(vec![two().meta]).unwrap().to_toml() + "sandbox = \"off\"\n";
    a_problem(|package| package.write_meta(&text), &[META_FILE, "sandbox"]);
}

#[test]
fn a_meta_without_plugins() {
    a_problem(
        |package| package.write_meta("format = 1\nplugin = []\n"),
        &[META_FILE, "names no plugin"],
    );
}

#[test]
fn a_meta_with_duplicate_names() {
    let text = Meta::new(vec![two().meta]).unwrap().to_toml();
    let (_, entry) = text.split_once("[[plugin]]").unwrap();
    let twice = format!("{text}\n[[plugin]]{entry}");
    a_problem(|package| package.write_meta(&twice), &["`actor`", "twice"]);
}

#[test]
fn names_that_escape_the_directory() {
    let bench = Bench::new("");
    let text = Meta::new(vec![two().meta]).unwrap().to_toml();
    let cases = [
        ("\"actor\"", r#""../actor""#, "plugin name"),
        ("\"actor\"", r#""a/b""#, "plugin name"),
        ("\"actor\"", r#""..""#, "plugin name"),
        ("\"actor\"", r#""a\u0007b""#, "plugin name"),
        ("\"libactor.so\"", r#""../libactor.so""#, "plugin file name"),
        ("\"libactor.so\"", r#""/lib/libc.so""#, "plugin file name"),
        ("\"libactor.so\"", r#""..""#, "plugin file name"),
        ("\"libactor.so\"", r#""a\nb.so""#, "plugin file name"),
    ];
    for (from, to, kind) in cases {
        bench.package().write_meta(text.replace(from, to));
        bench.has_a_problem("victim", &[META_FILE, "line", kind]);
    }
    bench.end();
}

#[test]
fn a_wrong_hash() {
    let bench = Bench::new("");
    bench.package().put_meta(&[&two()]);
    let found = bench.before.hash.unwrap().to_string();
    let promised = two().meta.hash.to_string();
    bench.is_refused(&["libactor.so", &found, &promised, "plugin.meta", "build"]);
    bench.end();
}

#[test]
fn another_target() {
    let target = "riscv64gc-unknown-linux-musl";
    a_refusal(
        &two().with_meta(|meta| meta.target = target.to_owned()),
        &[target, hotmerge_daemon::TARGET],
    );
}

#[test]
fn a_corrected_meta_is_accepted() {
    let bench = Bench::new("");
    let wrong = two().with_meta(|meta| meta.target = "riscv64gc-unknown-linux-musl".to_owned());
    bench.package().put(&[&wrong]);
    bench.is_refused(&["riscv64gc"]);
    // The very same file, and now the truth about it.
    bench.package().put(&[&two()]);
    bench.host.reload();
    assert_eq!(bench.host.text("actor", "mark"), "2");
    assert_eq!(bench.callers.unharmed()["actor"].generations, [1, 2].into());
    bench.host.stop();
}

#[test]
fn a_meta_with_wrong_size_or_contract() {
    let bench = Bench::new("");
    let truth = two().meta.size;
    bench
        .package()
        .put(&[&two().with_meta(|meta| meta.size = 7)]);
    bench.is_refused(&["libactor.so", &truth.to_string(), "plugin.meta", "7"]);
    bench
        .package()
        .put(&[&two().with_meta(|meta| meta.abi.minor = 9)]);
    bench.is_refused(&["libactor.so", "ABI 1.2", "plugin.meta", "1.9"]);
    bench.end();
}
