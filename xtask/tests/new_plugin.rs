//! A new plugin builds, passes its tests and is staged as it is; a bad request writes nothing.

mod common;

use std::fs;

use common::{Scratch, failure, field, lines};

/// A workspace that names the SDK for its members.
fn workspace() -> Scratch {
    let scratch = Scratch::new();
    scratch.plugin("one", "", "let _ = call; reply.text(\"hello\")");
    scratch.write(
        "plugins/Cargo.toml",
        "[workspace]\nresolver = \"3\"\nmembers = [\"crates/one\"]\n\
         [workspace.dependencies]\nhotmerge-sdk = { path = \"../hotmerge/plugins/sdk\" }\n",
    );
    scratch
}

#[test]
fn a_new_plugin_passes_tests_and_is_staged() {
    let scratch = workspace();
    let made = scratch
        .driver()
        .args(["new-plugin", "my-plugin"])
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let said = String::from_utf8(made.stdout).unwrap();
    assert!(
        said.contains("cargo hotmerge build-plugins -p my-plugin"),
        "{said}"
    );

    let tests = scratch
        .cargo()
        .args(["test", "--offline", "-p", "my-plugin"])
        .output()
        .unwrap();
    assert!(
        tests.status.success(),
        "{}",
        String::from_utf8_lossy(&tests.stdout)
    );
    let built = lines(
        scratch
            .build_plugins()
            .args(["--profile", "dev", "-p", "my-plugin"]),
    );
    assert_eq!(field(&built, "my-plugin", "action"), "staged");
    assert!(scratch.staged("my-plugin/libmy_plugin.so").exists());
}

/// Cargo is asked in other directories, too.
#[test]
fn relative_and_empty_variables_do_not_matter() {
    let scratch = workspace();
    let rustup = std::env::var_os("RUSTUP_HOME")
        .map_or_else(|| std::env::home_dir().unwrap().join(".rustup"), Into::into);
    std::os::unix::fs::symlink(rustup, scratch.path("plugins/rustup")).unwrap();
    for (variable, value) in [("RUSTUP_HOME", "rustup"), ("CARGO", "")] {
        let mut driver = scratch.driver();
        let name = variable.to_lowercase().replace('_', "-");
        driver.args(["new-plugin", &name]).env(variable, value);
        let (code, said) = failure(&mut driver);
        assert_eq!(code, 0, "{variable}={value}: {said}");
    }
}

#[test]
fn a_new_plugin_stands_alone_without_a_workspace() {
    let scratch = Scratch::new();
    let alone = scratch.path("alone");
    fs::create_dir(&alone).unwrap();
    let sdk = scratch.path("hotmerge/plugins/sdk");
    let mut driver = scratch.driver();
    driver
        .current_dir(&alone)
        .args(["new-plugin", "solo", "--sdk"])
        .arg(&sdk);
    assert!(driver.output().unwrap().status.success());
    let mut build = scratch.build_plugins();
    let built = lines(
        build
            .current_dir(alone.join("solo"))
            .args(["--profile", "dev"]),
    );
    assert_eq!(field(&built, "solo", "action"), "staged");
}

/// Cargo builds `liba_b.so` from both.
#[test]
fn a_library_name_is_taken_only_once() {
    for (first, second) in [("a-b", "a_b"), ("a_b", "a-b")] {
        let scratch = workspace();
        let mut driver = scratch.driver();
        let (code, said) = failure(driver.args(["new-plugin", first]));
        assert_eq!(code, 0, "{said}");
        let manifest = fs::read(scratch.path("plugins/Cargo.toml")).unwrap();
        let mut driver = scratch.driver();
        let (code, said) = failure(driver.args(["new-plugin", second]));
        assert_eq!(code, 1, "{said}");
        let expected = format!("already has the name `{second}`, or a library of that name");
        assert!(said.contains(&expected), "{said}");
        assert!(!scratch.path(format!("plugins/{second}")).exists());
        let after = fs::read(scratch.path("plugins/Cargo.toml")).unwrap();
        assert_eq!(after, manifest);
    }
}

#[test]
fn a_failed_creation_leaves_nothing_behind() {
    let scratch = workspace();
    scratch.edit(
        "plugins/crates/one/Cargo.toml",
        "[lib]\n",
        "[lib]\nname = \"so_called\"\n",
    );
    let manifest = fs::read(scratch.path("plugins/Cargo.toml")).unwrap();
    for (arguments, expected) in [
        (&["new-plugin", "../x"][..], "\"../x\" is not a plugin name"),
        (&["new-plugin", "fn"], "`fn` cannot be the name of a crate"),
        (&["new-plugin", "one"], "already has the name `one`"),
        (
            &["new-plugin", "so-called"],
            "already has the name `so-called`, or a library of that name",
        ),
        (&["new-plugin", "x", "--path", "crates"], "already exists"),
        (
            &["new-plugin", "x", "--sdk", "no/such/place"],
            "neither a directory",
        ),
    ] {
        let (code, said) = failure(scratch.driver().args(arguments));
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(expected), "{said}");
    }
    let mut outside = scratch.driver();
    let (_, said) = failure(
        outside
            .current_dir(scratch.path(""))
            .args(["new-plugin", "x"]),
    );
    assert!(
        said.contains("the source of `hotmerge-sdk` is unknown"),
        "{said}"
    );

    assert_eq!(
        fs::read(scratch.path("plugins/Cargo.toml")).unwrap(),
        manifest
    );
    assert!(!scratch.path("plugins/x").exists());
    assert!(!scratch.path("x").exists());
}
