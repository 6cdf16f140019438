//! What a plugin's file may not be.

use hotmerge_meta::Digest;
use hotmerge_tests::{Lab, Variant, plain};
use std::fs;

use crate::bench::{Bench, a_refusal, two};

#[test]
fn a_missing_file() {
    let bench = Bench::new("");
    bench.package().put_meta(&[&two()]);
    fs::remove_file(bench.package().file_path(&two())).unwrap();
    bench.is_refused(&["libactor.so", "does not exist"]);
    bench.end();
}

#[test]
fn an_empty_file() {
    let empty = two().with_bytes(Vec::clear);
    a_refusal(&empty, &["libactor.so", "is empty"]);
}

#[test]
fn a_file_other_than_a_shared_object() {
    let script = Variant::new("actor", b"#!/bin/sh\nexec true\n".to_vec());
    let script = script.with_meta(|meta| meta.hash = Digest::of(b"#!/bin/sh\nexec true\n"));
    a_refusal(&script, &["libactor.so", "not an ELF file"]);
}

#[test]
fn a_truncated_file() {
    let bench = Bench::new("");
    let whole = two().bytes;
    let ends = [
        1,
        4,
        63,
        64,
        1000,
        whole.len() / 2,
        two().meta.size as usize - 1,
    ];
    for end in ends {
        let half = two().with_meta(|_| {});
        bench.package().put(&[&Variant {
            bytes: whole[..end].to_vec(),
            ..half
        }]);
        bench.is_refused(&["libactor.so"]);
    }
    bench.package().put(&[&two()]);
    bench.host.reload();
    assert_eq!(
        bench.host.text("actor", "mark"),
        "2",
        "the whole file is taken"
    );
}

#[test]
fn a_file_for_another_machine() {
    let (code, name) = if cfg!(target_arch = "aarch64") {
        (62_u16, "x86_64")
    } else {
        (183, "aarch64")
    };
    let foreign = two().with_bytes(|bytes| bytes[18..20].copy_from_slice(&code.to_ne_bytes()));
    a_refusal(&foreign, &[name, std::env::consts::ARCH]);
}

#[test]
fn a_shared_object_without_the_plugin_symbol() {
    a_refusal(
        &plain().named("actor"),
        &["libactor.so", "exports no `hotmerge_plugin`"],
    );
}

#[test]
fn an_import_that_the_symbol_policy_forbids() {
    let lab = Lab::new();
    // It uses sockets, which nobody grants it.
    lab.package("victim").put(&[&two()]);
    let host = lab.start_with("symbols = \"enforce\"\n");
    let refused = host.plugin("actor").refused;
    let verify = |with_config: bool| {
        let [config, dir] = ["hotmerge.toml", "plugins"].map(|name| lab.path(name));
        let [config, dir] = [&config, &dir].map(|path| path.display().to_string());
        let config = ["--config", &*config];
        let config = if with_config { &config[..] } else { &[] };
        let arguments = ["verify", "--json", &dir];
        lab.hotmerge(arguments.into_iter().chain(config.iter().copied()))
    };
    let problem = verify(true).json()["problem"].clone();
    match refused {
        Some(refused) => {
            assert!(refused.reason.contains("the symbol policy"), "{refused:?}");
            assert_eq!(problem, refused.reason);
        }
        // In the host's own process it has what the host has.
        None => assert_eq!(problem, serde_json::Value::Null),
    }
    let by_default = verify(false).ended_with(5).json()["problem"].to_string();
    assert!(
        by_default.contains("network is not granted"),
        "{by_default}"
    );
    host.stop();
}

#[test]
fn another_contract() {
    a_refusal(
        &two().with_abi(0, 9),
        &[
            "ABI 0.9",
            "1.2",
            "rebuild the plugin with the SDK of this host",
        ],
    );
}

#[test]
fn a_newer_contract() {
    for (major, minor) in [(1, 3), (2, 0)] {
        let abi = format!("ABI {major}.{minor}");
        a_refusal(
            &two().with_abi(major, minor),
            &[&abi, "newer", "1.2", "upgrade and restart the host"],
        );
    }
}
