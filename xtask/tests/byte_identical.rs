//! The same sources give the same hash, wherever and beside whatever they are built; and the
//! user's flags reach the compiler all the same.
//!
//! The plugin has dependencies that panic in places of their own, generated code, and a
//! dependency that its build script uses as well: without them the problem does not show.

mod common;

use std::fs;

use common::{Scratch, field, holds, inode, lines};

const DEPENDENCIES: &str =
    "serde_json = \"1\"\nsemver = \"1\"\n[build-dependencies]\nsemver = \"1\"\n";

const METHOD: &str = r#"
        // What stands here does not matter.
        let value: serde_json::Value = serde_json::from_slice(call.request()).map_err(Error::bad_request)?;
        let version: semver::Version = value["version"].as_str().unwrap().parse().unwrap();
        reply.text(&format!("{version} {}", generated::pick(value["at"].as_u64().unwrap() as usize)))
    }
}

mod generated {
    include!(concat!(env!("OUT_DIR"), "/generated.rs"));
}

impl It {
    #[allow(dead_code)]
    fn nothing(&self) {
"#;

const BUILD_SCRIPT: &str = r#"
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let digits = semver::Version::new(1, 2, 3).to_string();
    let code = format!("pub fn pick(at: usize) -> u8 {{ b\"{digits}\"[at] }}");
    std::fs::write(std::env::var("OUT_DIR").unwrap() + "/generated.rs", code).unwrap();
}
"#;

/// A workspace with the plugin `probe`.
fn probe_at(place: &str) -> Scratch {
    let scratch = Scratch::at(place);
    scratch.plugin("probe", DEPENDENCIES, METHOD);
    scratch.write("plugins/crates/probe/build.rs", BUILD_SCRIPT);
    scratch
}

/// Builds `probe` where nothing is different from usual.
fn usual_hash() -> String {
    field(
        &lines(&mut probe_at("here").build_plugins()),
        "probe",
        "hash",
    )
}

#[test]
fn directories_jobs_and_debug_level_do_not_matter() {
    let other = probe_at("quite/another place");
    let staging = other.path("staging");
    let built = lines(
        other
            .build_plugins()
            .arg("--staging")
            .arg(&staging)
            .env("CARGO_HOME", other.cargo_home())
            .env("CARGO_TARGET_DIR", other.path("target elsewhere"))
            .env("CARGO_BUILD_JOBS", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only"),
    );
    let file = staging.join("probe/libprobe.so");
    assert!(
        holds(&file, "semver-1."),
        "a dependency's panics are in the plugin"
    );
    assert!(
        holds(&file, "probe/out/generated.rs"),
        "so are those of generated code"
    );
    assert_eq!(field(&built, "probe", "hash"), usual_hash());
}

#[test]
fn vendoring_target_and_version_do_not_matter() {
    let vendored = probe_at("here");
    let host = lines(&mut vendored.build_plugins());
    let target = fs::read_to_string(vendored.staged("probe/plugin.meta")).unwrap();
    let target = target
        .lines()
        .find_map(|line| line.strip_prefix("target = "));
    let target = target.unwrap().trim_matches('"').to_owned();

    let vendor = vendored
        .cargo()
        .args(["vendor", "--offline", "--versioned-dirs"])
        .output()
        .unwrap();
    assert!(
        vendor.status.success(),
        "{}",
        String::from_utf8_lossy(&vendor.stderr)
    );
    vendored.write("plugins/.cargo/config.toml", vendor.stdout);
    vendored.edit("plugins/crates/probe/Cargo.toml", "\"1.0.0\"", "\"1.0.1\"");
    vendored.cargo().arg("clean").status().unwrap();

    let built = lines(vendored.build_plugins().args(["--target", &target]));
    assert!(
        vendored
            .path("plugins/target/hotmerge/build")
            .join(target)
            .is_dir()
    );
    assert_eq!(field(&built, "probe", "version"), "1.0.1");
    assert_eq!(
        field(&built, "probe", "hash"),
        field(&host, "probe", "hash")
    );
}

#[test]
fn neighbours_do_not_matter() {
    let scratch = probe_at("here");
    scratch.plugin(
        "loud",
        "serde_json = { version = \"1\", features = [\"float_roundtrip\"] }\n",
        "reply.text(&serde_json::json!({ \"request\": call.request().len() }).to_string())",
    );
    scratch.plugin(
        "quiet",
        "semver = \"1\"\n",
        "let _ = call; reply.text(&semver::Version::new(1, 0, 0).to_string())",
    );
    let alone = field(
        &lines(scratch.build_plugins().args(["-p", "probe"])),
        "probe",
        "hash",
    );
    let file = inode(&scratch.staged("probe/libprobe.so"));

    // The first time they are built one by one, then in groups.
    for _ in 0..2 {
        let all = lines(&mut scratch.build_plugins());
        assert_eq!(field(&all, "probe", "hash"), alone);
        assert_eq!(field(&all, "probe", "action"), "unchanged");
    }
    assert_eq!(
        inode(&scratch.staged("probe/libprobe.so")),
        file,
        "it was not written again"
    );
    let groups =
        fs::read(scratch.path("plugins/target/hotmerge/build/hotmerge-groups.json")).unwrap();
    let groups: serde_json::Value = serde_json::from_slice(&groups).unwrap();
    let sizes: Vec<_> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["packages"].as_array().unwrap().len())
        .collect();
    assert_eq!(
        sizes,
        [2, 1],
        "`loud` and `quiet` together, `probe` with its other serde_json alone"
    );

    // Within a group, too, only what changed changes.
    scratch.edit(
        "plugins/crates/probe/src/lib.rs",
        "What stands here does not matter",
        "It does not matter what stands here",
    );
    scratch.edit(
        "plugins/crates/quiet/src/lib.rs",
        "Version::new(1, 0, 0)",
        "Version::new(2, 0, 0)",
    );
    let edited = lines(&mut scratch.build_plugins());
    assert_eq!(field(&edited, "probe", "action"), "unchanged");
    assert_eq!(field(&edited, "loud", "action"), "unchanged");
    assert_eq!(field(&edited, "quiet", "action"), "staged");
}

/// A plugin that says which of the flags `--cfg from_…` reached the compiler.
fn listener(sources: &[&str]) -> Scratch {
    let scratch = Scratch::new();
    let said: String = sources
        .iter()
        .map(|source| format!("if cfg!({source}) {{ reply.text(\"reached: {source}\")?; }}\n"))
        .collect();
    scratch.plugin(
        "listener",
        "",
        &format!("#![allow(unexpected_cfgs)] let _ = call; {said} Ok(())"),
    );
    scratch
}

#[test]
fn flags_from_every_source_reach_the_compiler() {
    let host = host();
    let of_target = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        host.to_uppercase().replace('-', "_")
    );
    let ways: [(&str, Option<&str>, String); 7] = [
        (
            "from_encoded",
            Some("CARGO_ENCODED_RUSTFLAGS"),
            String::new(),
        ),
        ("from_rustflags", Some("RUSTFLAGS"), String::new()),
        ("from_target_variable", Some(&of_target), String::new()),
        (
            "from_build_variable",
            Some("CARGO_BUILD_RUSTFLAGS"),
            String::new(),
        ),
        ("from_target_table", None, format!("[target.{host}]\n")),
        ("from_cfg_table", None, "[target.'cfg(unix)']\n".to_owned()),
        ("from_build_table", None, "[build]\n".to_owned()),
    ];
    let scratch = listener(&ways.each_ref().map(|(name, ..)| *name));
    for (name, variable, table) in &ways {
        let mut build = scratch.build_plugins();
        match variable {
            Some(variable @ "CARGO_ENCODED_RUSTFLAGS") => {
                build.env(variable, format!("--cfg\u{1f}{name}"))
            }
            Some(variable) => build.env(variable, format!("--cfg {name}")),
            None => &mut build,
        };
        scratch.write(
            "plugins/.cargo/config.toml",
            if variable.is_some() {
                String::new()
            } else {
                format!("{table}rustflags = [\"--cfg\", \"{name}\"]\n")
            },
        );
        lines(&mut build);
        let file = scratch.staged("listener/liblistener.so");
        for (other, ..) in &ways {
            assert_eq!(
                holds(&file, &format!("reached: {other}")),
                other == name,
                "{name}: {other}"
            );
        }
    }
}

#[test]
fn compiler_wrappers_stay_in_effect() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = listener(&["from_variable", "from_table"]);
    for name in ["from_variable", "from_table"] {
        let wrapper = scratch.path(name);
        fs::write(
            &wrapper,
            format!("#!/bin/sh\nrustc=$1; shift; exec \"$rustc\" \"$@\" --cfg {name}\n"),
        )
        .unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let file = scratch.staged("listener/liblistener.so");

    lines(
        scratch
            .build_plugins()
            .env("RUSTC_WRAPPER", scratch.path("from_variable")),
    );
    assert!(holds(&file, "reached: from_variable"));

    let table = format!(
        "[build]\nrustc-wrapper = {:?}\n",
        scratch.path("from_table")
    );
    scratch.write("plugins/.cargo/config.toml", table);
    scratch.cargo().arg("clean").status().unwrap();
    lines(&mut scratch.build_plugins());
    assert!(holds(&file, "reached: from_table"));
}

fn host() -> String {
    let version = std::process::Command::new("rustc")
        .arg("-vV")
        .output()
        .unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap()
        .to_owned()
}
