//! What a user's environment and cargo's configuration may say, and the driver must neither
//! stumble over nor read in another way than cargo.

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use common::{Scratch, dev, failure, field, lines};
use hotmerge_meta::Meta;

fn one_plugin_at(place: &str) -> Scratch {
    let scratch = Scratch::at(place);
    scratch.plugin("one", "", "let _ = call; reply.text(\"hello 0\")");
    scratch
}

/// A program that says that it ran, then runs another.
fn tool(scratch: &Scratch, path: &str, runs: &str) {
    let ran = scratch.path("ran");
    scratch.write(
        path,
        format!(
            "#!/bin/sh\necho ran >> '{}'\nexec {runs} \"$@\"\n",
            ran.display()
        ),
    );
    fs::set_permissions(scratch.path(path), fs::Permissions::from_mode(0o755)).unwrap();
}

fn has_run(scratch: &Scratch) -> bool {
    fs::remove_file(scratch.path("ran")).is_ok()
}

/// Changes the plugin, so that there is something to compile and to link.
fn change(scratch: &Scratch, at: usize) {
    scratch.edit(
        "plugins/crates/one/src/lib.rs",
        &format!("hello {at}"),
        &format!("hello {}", at + 1),
    );
}

#[test]
fn relative_programs_start_where_the_user_is() {
    let scratch = one_plugin_at("here");
    tool(&scratch, "plugins/crates/one/tools/rustc", "rustc");
    tool(&scratch, "plugins/crates/one/tools/wrapper", "");
    tool(&scratch, "plugins/crates/one/tools/linker", "cc");
    let linker = format!(
        "CARGO_TARGET_{}_LINKER",
        host().to_uppercase().replace('-', "_")
    );
    for (at, (variable, program)) in [
        ("RUSTC_WRAPPER", "tools/wrapper"),
        ("CARGO_BUILD_RUSTC_WRAPPER", "./tools/wrapper"),
        ("RUSTC_WORKSPACE_WRAPPER", "tools/wrapper"),
        ("CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER", "tools/wrapper"),
        (linker.as_str(), "tools/linker"),
        ("RUSTC", "tools/rustc"),
        ("CARGO_BUILD_RUSTC", "tools/rustc"),
    ]
    .into_iter()
    .enumerate()
    {
        change(&scratch, at);
        let mut driver = dev(&scratch);
        driver.current_dir(scratch.path("plugins/crates/one"));
        lines(driver.env(variable, program));
        assert!(has_run(&scratch), "{variable}");
    }
}

/// A directory is made there, or found there by a link.
#[test]
fn relative_directories_are_where_the_user_is() {
    let scratch = Scratch::at("here");
    // From a registry, whose sources are unpacked in cargo's home.
    scratch.plugin(
        "one",
        "itoa = \"1\"\n",
        "let _ = call; reply.text(itoa::Buffer::new().format(0))",
    );
    let member = scratch.path("plugins/crates/one");
    std::os::unix::fs::symlink(scratch.cargo_home(), member.join("home")).unwrap();
    let rustup = std::env::var_os("RUSTUP_HOME")
        .map_or_else(|| std::env::home_dir().unwrap().join(".rustup"), Into::into);
    std::os::unix::fs::symlink(&rustup, member.join("rustup")).unwrap();
    for (variable, name, makes) in [
        (
            "CARGO_TARGET_DIR",
            "t1",
            "t1/hotmerge/staging/one/libone.so",
        ),
        (
            "CARGO_TARGET_DIR",
            "./t2",
            "t2/hotmerge/staging/one/libone.so",
        ),
        (
            "CARGO_BUILD_TARGET_DIR",
            "t4",
            "t4/hotmerge/staging/one/libone.so",
        ),
        ("CARGO_HOME", "home", "home/registry/src"),
        ("RUSTUP_HOME", "rustup", ""),
        // The driver has a directory of its own for what this moves.
        ("CARGO_BUILD_BUILD_DIR", "b", ""),
        ("CARGO_BUILD_DEP_INFO_BASEDIR", ".", ""),
        ("CARGO_HTTP_CAINFO", "ca.pem", ""),
        ("SSL_CERT_FILE", "ca.pem", ""),
        ("SSL_CERT_DIR", "certificates", ""),
    ] {
        let mut driver = dev(&scratch);
        driver.current_dir(&member).env(variable, name);
        let (code, said) = failure(&mut driver);
        assert_eq!(code, 0, "{variable}={name}: {said}");
        assert!(member.join(makes).exists(), "{variable}={name}");
        let elsewhere = scratch.path("plugins").join(name);
        let is_root = name == "." || !elsewhere.exists();
        assert!(is_root, "{variable}={name} is below the workspace's root");
    }
}

#[test]
fn settings_count_from_wherever_cargo_takes_them() {
    let scratch = one_plugin_at("here");
    tool(&scratch, "plugins/.cargo/tools/wrapper", "");
    let config = "plugins/.cargo/config.toml";
    scratch.write(
        config,
        "include = [\"more/included.toml\"]\n[build]\njobs = \"default\"\n",
    );
    // From the directory above the file's own.
    scratch.write(
        "plugins/.cargo/more/included.toml",
        "[build]\nrustc-wrapper = \"tools/wrapper\"\n",
    );
    lines(dev(&scratch).env("CARGO_NET_OFFLINE", "yes"));
    assert!(has_run(&scratch));

    // An empty variable is the user's way to do without.
    change(&scratch, 0);
    lines(dev(&scratch).env("RUSTC_WRAPPER", ""));
    assert!(!has_run(&scratch));

    // What makes no sense is said by cargo.
    scratch.write(config, "[build\n");
    let (code, said) = failure(&mut dev(&scratch));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("config.toml"), "{said}");
}

#[test]
fn any_path_of_a_workspace_builds() {
    for place in ["a {b}", "number #1", "a=b,c;d ü 'x'", "$HOME `x` & (y)!"] {
        let scratch = one_plugin_at(place);
        lines(&mut dev(&scratch));
        scratch.write(
            "plugins/.cargo/config.toml",
            "[build]\nbuild-dir = \"elsewhere\"\n",
        );
        change(&scratch, 0);
        let built = lines(&mut dev(&scratch));
        assert_eq!(field(&built, "one", "action"), "staged");
        assert!(!scratch.path("plugins/elsewhere/debug").exists());
    }
}

/// Tried and held: none of these changes a plugin's bytes or keeps it from being built.
#[test]
fn variables_of_a_users_environment_do_not_matter() {
    let scratch = one_plugin_at("here");
    let hash = field(&lines(&mut dev(&scratch)), "one", "hash");
    for (variable, value) in [
        ("CARGO", ""),
        ("CARGO_BUILD_BUILD_DIR", "/nonexistent"),
        ("CARGO_BUILD_JOBS", "default"),
        ("CARGO_BUILD_JOBS", "-1"),
        ("CARGO_BUILD_PIPELINING", "true"),
        ("CARGO_CRATE_NAME", "other"),
        ("CARGO_FUTURE_INCOMPAT_REPORT_FREQUENCY", "never"),
        ("CARGO_HTTP_MULTIPLEXING", "false"),
        ("CARGO_LOG", "off"),
        ("CARGO_MANIFEST_DIR", "/nonexistent"),
        ("CARGO_NET_OFFLINE", "yes"),
        ("CARGO_NET_RETRY", "0"),
        ("CARGO_PKG_NAME", "other"),
        ("CARGO_PKG_VERSION", "9.9.9"),
        ("CARGO_PRIMARY_PACKAGE", "1"),
        ("CARGO_TERM_COLOR", "always"),
        ("CARGO_TERM_PROGRESS_WHEN", "never"),
        ("CARGO_TERM_QUIET", "true"),
        ("CARGO_TERM_VERBOSE", "true"),
        ("CLICOLOR_FORCE", "1"),
        ("COLUMNS", "1"),
        ("GIT_DIR", "/nonexistent"),
        ("HOTMERGE_RUNTIME_DIR", ""),
        ("LANG", "tr_TR.UTF-8"),
        ("LC_ALL", "C"),
        ("MAKEFLAGS", "-j1"),
        ("NO_COLOR", "1"),
        ("NUM_JOBS", "1"),
        ("OPT_LEVEL", "0"),
        ("OUT_DIR", "/nonexistent"),
        ("PROFILE", "other"),
        ("PWD", "/nonexistent"),
        ("RUSTC_LOG", "off"),
        ("RUSTC_WRAPPER", ""),
        ("RUST_BACKTRACE", "full"),
        ("RUST_LOG", "off"),
        ("SHELL", "/bin/false"),
        ("SOURCE_DATE_EPOCH", "1"),
        ("TARGET", "other"),
        ("TERM", "dumb"),
        ("TZ", "Pacific/Kiritimati"),
    ] {
        let (code, said) = failure(dev(&scratch).env(variable, value));
        assert_eq!(code, 0, "{variable}={value}: {said}");
        let staged = Meta::read_path(&scratch.staged("one")).unwrap();
        let [plugin] = staged.plugin.as_slice() else {
            panic!("{staged:?}")
        };
        assert_eq!(plugin.hash.to_string(), hash, "{variable}={value}");
    }
}

#[test]
fn empty_variables_of_other_commands_count_as_unset() {
    let scratch = one_plugin_at("here");
    let mut driver = scratch.driver();
    driver.args(["sign", "--new-key", "key", "--no-password"]);
    driver.env("HOTMERGE_SIGN_KEY", "");
    driver.env("HOTMERGE_SIGN_PASSWORD_FILE", "");
    let (code, said) = failure(&mut driver);
    assert_eq!(code, 0, "{said}");
    assert!(scratch.path("plugins/key.pub").exists());
}

fn host() -> String {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.unwrap().to_owned()
}
