//! What is staged is what its own package builds: whatever else has the same name, shares the
//! target directory, or lies beside it.

mod common;

use std::{fs, path::Path};

use common::{Scratch, failure, field, holds, lines};

fn says(text: &str) -> String {
    format!("let _ = call; reply.text(\"{text}\")")
}

fn named(scratch: &Scratch, plugin: &str, library: &str, text: &str) {
    scratch.plugin(plugin, "", &says(text));
    scratch.edit(
        &format!("plugins/crates/{plugin}/Cargo.toml"),
        "[package.metadata.hotmerge]\n[lib]\n",
        &format!("[package.metadata.hotmerge]\nname = \"{plugin}\"\n[lib]\nname = \"{library}\"\n"),
    );
}

#[test]
fn plugins_of_one_library_name_are_refused() {
    let scratch = Scratch::new();
    named(&scratch, "one", "shared", "first");
    named(&scratch, "two", "shared", "second");
    let (code, said) = failure(&mut scratch.build_plugins());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("both build `libshared.so`"), "{said}");
    assert!(!scratch.staged("").exists());
}

#[test]
fn plugins_whose_names_build_one_file_are_refused() {
    let scratch = Scratch::new();
    for plugin in ["a-b", "a_b"] {
        scratch.plugin(plugin, "", &says(plugin));
    }
    let is_refused = |words: &str| {
        let (code, said) = failure(&mut scratch.build_plugins());
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(words), "{said}");
        assert!(!scratch.staged("").exists());
    };
    is_refused("both declare the plugin `a_b`");
    scratch.edit(
        "plugins/crates/a-b/Cargo.toml",
        "[package.metadata.hotmerge]\n",
        "[package.metadata.hotmerge]\nname = \"a-b\"\n",
    );
    is_refused("both build `liba_b.so`");
}

/// As after a change of branches: cargo believes that it has built the package already.
#[test]
fn a_file_of_another_package_is_not_staged() {
    let scratch = Scratch::new();
    named(&scratch, "one", "shared", "first");
    named(&scratch, "two", "shared", "second");
    let (crates, away) = (scratch.path("plugins/crates"), scratch.path("away"));
    let only = |there: &str, other: &str| {
        let _ = fs::create_dir(&away);
        let _ = fs::rename(away.join(there), crates.join(there));
        fs::rename(crates.join(other), away.join(other)).unwrap();
        lines(&mut scratch.build_plugins());
    };
    only("one", "two");
    only("two", "one");
    assert!(holds(&scratch.staged("two/libshared.so"), "second"));
    only("one", "two");
    assert!(holds(&scratch.staged("one/libshared.so"), "first"));
}

#[test]
fn workspaces_share_a_target_directory_without_mixing() {
    let places = [Scratch::new(), Scratch::new()];
    for (scratch, text) in places.iter().zip(["said here", "said there"]) {
        scratch.plugin("one", "", &says(text));
        scratch.plugin("two", "", &says(text));
    }
    let target = places[0].path("shared target");
    let staged = |path: &str| target.join("hotmerge/staging").join(path);
    let build = |at: usize| {
        let mut build = places[at].build_plugins();
        build.env("CARGO_TARGET_DIR", &target);
        build
    };
    lines(&mut build(0));
    assert!(holds(&staged("one/libone.so"), "said here"));
    let output = build(1).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("`one` was staged by the workspace `"),
        "{said}"
    );
    assert!(holds(&staged("one/libone.so"), "said there"));

    // What belongs to the other is not removed.
    fs::remove_dir_all(places[0].path("plugins/crates/two")).unwrap();
    let all = lines(&mut build(0));
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(holds(&staged("two/libtwo.so"), "said there"));
}

/// A plugin that links `serde_json` with its `itoa`, and a path dependency named alike.
fn twins() -> (Scratch, String) {
    let scratch = Scratch::new();
    scratch.plugin(
        "one",
        "serde_json = \"1\"\n",
        "let _ = call; reply.text(&format!(\"{}\", serde_json::json!(1.5)))",
    );
    let lock = fs::read_to_string(scratch.path("plugins/Cargo.lock")).unwrap();
    let (_, rest) = lock.split_once("name = \"itoa\"\nversion = \"").unwrap();
    let version = rest.split('"').next().unwrap().to_owned();
    (scratch, version)
}

fn add_twin((scratch, version): &(Scratch, String)) {
    scratch.write(
        "itoa/Cargo.toml",
        format!("[package]\nname = \"itoa\"\nversion = \"{version}\"\nedition = \"2024\"\n"),
    );
    scratch.write(
        "itoa/src/lib.rs",
        "pub fn of() -> String { format!(\"twin\") }",
    );
    let manifest = "plugins/crates/one/Cargo.toml";
    scratch.edit(
        manifest,
        "serde_json = \"1\"\n",
        "serde_json = \"1\"\nitoa = { path = \"../../../itoa\" }\n",
    );
    scratch.edit(
        "plugins/crates/one/src/lib.rs",
        "let _ = call; reply",
        "let _ = call; reply.text(&itoa::of())?; reply",
    );
}

#[test]
fn same_name_from_two_sources_builds_alike() {
    let unknown = twins();
    add_twin(&unknown);
    let hash = |(scratch, _): &(Scratch, String)| {
        field(&lines(&mut scratch.build_plugins()), "one", "hash")
    };
    let first = hash(&unknown);
    assert_eq!(hash(&unknown), first);

    // With what was built before the twin came, and with a lock file that knows of it.
    let known = twins();
    hash(&known);
    add_twin(&known);
    let updated = known
        .0
        .cargo()
        .args(["metadata", "--offline", "--format-version=1"])
        .output()
        .unwrap();
    assert!(updated.status.success());
    assert_eq!(hash(&known), first);
}

#[test]
fn a_plugin_that_another_links_is_refused() {
    for (profile, variable, value) in [
        ("release", "CARGO_PROFILE_RELEASE_LTO", "fat"),
        ("release", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
        ("release", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
        ("dev", "CARGO_PROFILE_DEV_CODEGEN_UNITS", "1"),
        ("dev", "CARGO_PROFILE_DEV_DEBUG", "0"),
    ] {
        let scratch = Scratch::new();
        scratch.plugin("base", "", &says("base"));
        scratch.edit(
            "plugins/crates/base/Cargo.toml",
            "[\"cdylib\"]",
            "[\"cdylib\", \"rlib\"]",
        );
        scratch.write(
            "plugins/crates/base/src/used.rs",
            "pub fn used() -> &'static str { \"used\" }",
        );
        scratch.edit(
            "plugins/crates/base/src/lib.rs",
            "struct It;",
            "mod used; pub use used::used; struct It;",
        );
        let build = || {
            let mut build = scratch.build_plugins();
            build.args(["--profile", profile]).env(variable, value);
            build
        };
        lines(&mut build());
        scratch.plugin(
            "user",
            "base = { path = \"../base\" }\n",
            "let _ = call; reply.text(base::used())",
        );
        // With all of the workspace, and alone.
        let mut alone = build();
        alone.args(["--plugin", "user"]);
        for mut build in [build(), alone] {
            let (code, said) = failure(&mut build);
            assert_eq!(code, 3, "{variable}={value}: {said}");
            assert!(
                said.contains("`user` links the plugin `base`"),
                "{variable}={value}: {said}"
            );
            assert!(!scratch.staged("user").exists());
        }
    }
}

/// The plugin `probe` as the package at a place within, or beside, its workspace.
fn probe_in(place: &str) -> Scratch {
    let scratch = Scratch::new();
    let sdk = scratch.path("hotmerge/plugins/sdk");
    scratch.plugin(
        "probe",
        "",
        "let at: usize = call.method().parse().unwrap(); reply.text([\"a\", \"b\"][at])",
    );
    let manifest = fs::read_to_string(scratch.path("plugins/crates/probe/Cargo.toml")).unwrap();
    let manifest = manifest.replace("../../../hotmerge/plugins/sdk", sdk.to_str().unwrap());
    let source = fs::read_to_string(scratch.path("plugins/crates/probe/src/lib.rs")).unwrap();
    fs::remove_dir_all(scratch.path("plugins/crates")).unwrap();
    let workspace =
        |members: &str| format!("[workspace]\nresolver = \"3\"\nmembers = [{members}]\n");
    let package = Path::new("plugins").join(place);
    if place.is_empty() {
        scratch.write("plugins/Cargo.toml", workspace("") + &manifest);
    } else {
        scratch.write("plugins/Cargo.toml", workspace(&format!("\"{place}\"")));
        let outside = if place.starts_with("..") {
            "workspace = \"../plugins\"\n"
        } else {
            ""
        };
        scratch.write(
            package.join("Cargo.toml").to_str().unwrap(),
            manifest.replace("[package]\n", &format!("[package]\n{outside}")),
        );
    }
    scratch.write(package.join("src/lib.rs").to_str().unwrap(), source);
    scratch
}

#[test]
fn the_place_in_the_workspace_does_not_matter() {
    let hashes = ["crates/probe", "plug", "", "../outside"].map(|place| {
        let scratch = probe_in(place);
        let hash = field(&lines(&mut scratch.build_plugins()), "probe", "hash");
        assert!(holds(
            &scratch.staged("probe/libprobe.so"),
            "probe/src/lib.rs"
        ));
        hash
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}
