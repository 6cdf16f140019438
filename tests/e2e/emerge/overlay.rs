//! The overlay itself: judged by pkgcheck, its eclass by its own tests, its packages by emerge.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use hotmerge_tests::{repository, skipped};

use crate::{
    artifacts,
    calls::greeting,
    lab::{Lab, Mode, ended, is_root, said},
    packages,
};

#[test]
fn pkgcheck_finds_nothing() -> Result<()> {
    let lab = Lab::bare(Mode::Prefix)?;
    // The copy has no Manifests of its own making yet: they are the committed ones.
    let config = lab.path("portage");
    let config = config.to_str().context("a path is UTF-8")?;
    let scan = [
        "pkgcheck", "--config", config, "scan", "--repo", "hotmerge", "--exit", "error",
    ];
    let (code, said) = ended(&mut lab.command(&scan))?;
    ensure!(code == Some(0) && said.trim().is_empty(), "{said}");

    // And it would find something.
    let ebuild = lab.path("repos/hotmerge/app-admin/hotmerge/hotmerge-9999.ebuild");
    fs::write(
        &ebuild,
        fs::read_to_string(&ebuild)?.replace("SLOT=", "SLOTH="),
    )?;
    let (code, said) = ended(&mut lab.command(&scan))?;
    ensure!(
        code != Some(0) && said.contains("hotmerge"),
        "a spoilt ebuild passes: {said}"
    );
    Ok(())
}

#[test]
fn the_eclass_passes_its_tests() -> Result<()> {
    said(&mut Command::new(
        repository().join("ebuilds/eclass/tests/hotmerge-plugin.sh"),
    ))?;
    Ok(())
}

/// The tests have a stand-in for what the package manager itself offers to compare versions.
#[test]
fn the_eclass_passes_with_portages_version_functions() -> Result<()> {
    let lab = Lab::bare(Mode::Prefix)?;
    let (settings, tests) = (
        lab.path("settings"),
        repository().join("ebuilds/eclass/tests"),
    );
    let said = lab.shell(&format!(
        "source {}; VERSION_FUNCTIONS=$VENV/lib/portage/bin/version-functions.sh {}",
        settings.display(),
        tests.join("hotmerge-plugin.sh").display()
    ))?;
    ensure!(
        said.contains("compares versions as the package manager does"),
        "{said}"
    );
    ensure!(!said.contains("command not found"), "{said}");
    Ok(())
}

#[test]
fn shell_scripts_pass_shellcheck() -> Result<()> {
    if ended(Command::new("shellcheck").arg("--version")).is_err() {
        skipped("there is no `shellcheck`");
        return Ok(());
    }
    let mut check = Command::new("shellcheck");
    check.arg("--external-sources").current_dir(repository());
    check.args([
        "scripts/portage-lab",
        "scripts/release-tarballs",
        "scripts/services/render",
    ]);
    check.args([
        "ebuilds/eclass/tests/hotmerge-plugin.sh",
        "ebuilds/eclass/tests/tests-common.sh",
    ]);
    said(&mut check)?;
    Ok(())
}

#[test]
fn live_ebuilds_equal_versioned_ones() -> Result<()> {
    for package in [
        "hotmerge-0.1.0",
        "hotmerge-announce-0.1.0",
        "hotmerge-announce-cli-0.1.0",
        "hotmerge-example-1.0.0",
    ] {
        let (name, _) = package.rsplit_once('-').context("a name and a version")?;
        let dir = repository().join("ebuilds/app-admin").join(name);
        let versioned = fs::read_to_string(dir.join(format!("{package}.ebuild")))?;
        let live = fs::read_to_string(dir.join(format!("{name}-9999.ebuild")))?;
        ensure!(versioned == live, "`{package}` and its live ebuild differ");
    }
    Ok(())
}

#[test]
fn ebuilds_name_the_major_version_of_the_contract() -> Result<()> {
    let major = hotmerge_meta::Abi::CURRENT.major;
    let (slot, speaks) = (
        format!("SLOT=\"0/{major}\""),
        format!("HOTMERGE_ABI={major}\n"),
    );
    for (ebuild, line) in [
        ("hotmerge/hotmerge-0.1.0", &slot),
        ("hotmerge-announce/hotmerge-announce-0.1.0", &speaks),
        ("hotmerge-example/hotmerge-example-1.0.0", &speaks),
    ] {
        let file = repository().join(format!("ebuilds/app-admin/{ebuild}.ebuild"));
        ensure!(
            fs::read_to_string(file)?.contains(line),
            "`{ebuild}` has no {line}"
        );
    }
    Ok(())
}

#[test]
fn the_overlays_plugins_run_in_its_host() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::with_host()?;
    for program in ["hotmerge", "cargo-hotmerge"] {
        lab.shell(&format!(
            "cd /usr/share
            test -s man/man1/{program}.1 -a -s bash-completion/completions/{program}
            test -s zsh/site-functions/_{program} -a -s fish/vendor_completions.d/{program}.fish"
        ))?;
    }
    let example = lab.path("made/sources/hotmerge-example-1.0.0");
    packages::copy_example(&example)?;
    packages::lock(&example)?;
    packages::pack(&example, &lab.path("distfiles"))?;
    for package in [
        "hotmerge-example/hotmerge-example-1.0.0",
        "hotmerge-announce/hotmerge-announce-0.1.0",
    ] {
        lab.manifest(&format!("hotmerge/app-admin/{package}.ebuild"))?;
    }
    lab.emerge_with(&["FEATURES=test"], &["app-admin/hotmerge-example"])?;
    lab.emerge(&["app-admin/hotmerge-announce"])?;
    ensure!(greeting(&lab, "example")? == "Hello");
    let verdict = lab.shell(
        "printf '# Title\\n' | hotmerge call announce check --input - || { hotmerge status >&2; false; }",
    )?;
    ensure!(!verdict.is_empty(), "announce does not answer");
    Ok(())
}

#[test]
fn a_cross_build_uses_the_build_machines_driver() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::with_stopped_host()?;
    packages::Greeter::new("alpha", "1.0.0", "Hello").add_to(&lab)?;
    let log = cross_emerge(&lab, "app-misc/alpha")?;
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    ensure!(
        log.contains(&format!("--target {target}")),
        "cargo got no target:\n{log}"
    );
    ensure!(
        log.contains("/usr/bin/cargo-hotmerge hotmerge build-plugins"),
        "{log}"
    );
    ensure!(
        !log.contains("without respecting CFLAGS"),
        "Portage complains of Rust:\n{log}"
    );
    lab.shell("hotmerge verify /target/usr/lib64/hotmerge/plugins")?;
    Ok(())
}

/// Where no host is installed that could write its documents, and the one that is built cannot run.
#[test]
fn a_cross_built_host_has_its_documents() -> Result<()> {
    has_documents_if_cross_built(
        "hotmerge",
        "cd /target/usr/share
        test -s man/man1/hotmerge.1 -a -s man/man1/hotmerge-reload.1 -a -s man/man5/hotmerge.toml.5
        test -s bash-completion/completions/hotmerge -a -s zsh/site-functions/_hotmerge
        test -s fish/vendor_completions.d/hotmerge.fish
        test ! -e /target/usr/bin/cargo-hotmerge -a ! -e man/man1/cargo-hotmerge.1",
    )
}

/// The same for the program that only maintainers need.
#[test]
fn a_cross_built_announce_cli_has_its_documents() -> Result<()> {
    has_documents_if_cross_built(
        "hotmerge-announce-cli",
        "test ! -e /usr/bin/hotmerge-announce
        cd /target/usr/share
        test -x /target/usr/bin/hotmerge-announce
        test -s man/man1/hotmerge-announce.1 -a -s man/man1/hotmerge-announce-release.1
        test -s bash-completion/completions/hotmerge-announce -a -s zsh/site-functions/_hotmerge-announce
        test -s fish/vendor_completions.d/hotmerge-announce.fish",
    )
}

/// Cross-builds a package where nothing of the project is installed; the script looks at the result.
fn has_documents_if_cross_built(package: &str, script: &str) -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::bare(Mode::Root)?;
    lab.manifest(&format!(
        "hotmerge/app-admin/{package}/{package}-0.1.0.ebuild"
    ))?;
    lab.emerge(&["dev-lang/rust-bin"])?;
    let log = cross_emerge(&lab, &format!("app-admin/{package}"))?;
    ensure!(
        !log.contains("without respecting CFLAGS"),
        "Portage complains of Rust:\n{log}"
    );
    lab.shell(script)?;
    Ok(())
}

#[test]
fn ebuilds_need_and_fetch_nothing_twice() -> Result<()> {
    let lab = Lab::bare(Mode::Prefix)?;
    let prefix = lab.path("eprefix");
    let prefix = prefix.to_str().context("a path is UTF-8")?;
    let told = |package: &str, key: &str| {
        let metadata = ["portageq", "metadata", prefix, "ebuild"];
        let names = [&*format!("app-admin/{package}-0.1.0"), key];
        said(&mut lab.command(&[&metadata[..], &names].concat()))
    };
    let needs = told("hotmerge", "RDEPEND")?;
    let times = needs.matches("virtual/tmpfiles").count();
    ensure!(times == 1, "named {times} times: {needs}");
    // The host's crates are many times the plugin's.
    let sources = told("hotmerge-announce", "SRC_URI")?;
    let files: Vec<_> = sources
        .split_whitespace()
        .filter_map(|address| address.rsplit('/').next())
        .collect();
    let own = [
        "hotmerge-announce-0.1.0.tar.xz",
        "hotmerge-announce-0.1.0-crates.tar.xz",
    ];
    ensure!(files == own, "{files:?}");
    Ok(())
}

/// A vendor of its own is enough for Portage and cargo to cross-compile, without a toolchain
/// for another processor. The flag is what Portage finds programs by that were built without the
/// user's.
fn cross_emerge(lab: &Lab, package: &str) -> Result<String> {
    let machine = std::env::consts::ARCH;
    let cross = [
        format!("CHOST={machine}-lab-linux-gnu"),
        format!("CBUILD={machine}-pc-linux-gnu"),
        "ROOT=/target".to_owned(),
        "CFLAGS=-frecord-gcc-switches".to_owned(),
        artifacts::QUICKLY.to_owned(),
    ];
    let cross: Vec<_> = cross.iter().map(String::as_str).collect();
    lab.shell("mkdir -p /target")?;
    lab.emerge_with(&cross, &["--nodeps", package])
}

/// To build a plugin again would not make its SDK speak another interface: the host waits until
/// there is a version of the plugin that does.
#[test]
fn portage_keeps_a_host_that_plugins_need() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::with_stopped_host()?;
    packages::Greeter::new("alpha", "1.0.0", "Hello").add_to(&lab)?;
    // Wanted for itself: Portage asks only after what somebody wants.
    lab.shell("emerge app-misc/alpha")?;

    let host = lab.path("repos/hotmerge/app-admin/hotmerge");
    let ebuild = fs::read_to_string(host.join("hotmerge-0.1.0.ebuild"))?;
    let update = ["--pretend", "--update", "--deep", "@world"];
    // The same interface in a newer host is none of the plugin's business.
    fs::write(host.join("hotmerge-0.1.0-r1.ebuild"), &ebuild)?;
    let plan = lab.emerge(&update)?;
    ensure!(
        plan.contains("hotmerge-0.1.0-r1") && !plan.contains("app-misc/alpha"),
        "{plan}"
    );

    let slot = format!("SLOT=\"0/{}\"", hotmerge_meta::Abi::CURRENT.major);
    let next = ebuild.replace(&slot, "SLOT=\"0/999\"");
    fs::write(host.join("hotmerge-0.1.0-r2.ebuild"), next)?;
    let plan = lab.emerge(&update)?;
    ensure!(
        plan.contains("hotmerge-0.1.0-r1")
            && !plan.contains("[ebuild     U  ] app-admin/hotmerge-0.1.0-r2"),
        "the plugin would lose its host: {plan}"
    );

    let plugin = lab.path("repos/made/app-misc/alpha");
    let claim = format!("HOTMERGE_ABI={}\n", hotmerge_meta::Abi::CURRENT.major);
    let next = fs::read_to_string(plugin.join("alpha-1.0.0.ebuild"))?;
    let next = next.replace(&claim, "HOTMERGE_ABI=999\n");
    fs::write(plugin.join("alpha-1.0.0-r9.ebuild"), next)?;
    let plan = lab.emerge(&update)?;
    ensure!(
        plan.contains("hotmerge-0.1.0-r2") && plan.contains("app-misc/alpha-1.0.0-r9"),
        "{plan}"
    );

    // It claims what its SDK does not keep.
    let (code, log) = ended(
        &mut lab.command(&[
            "ebuild",
            plugin
                .join("alpha-1.0.0-r9.ebuild")
                .to_str()
                .context("a path is UTF-8")?,
            "compile",
        ]),
    )?;
    ensure!(
        code != Some(0) && log.contains("but HOTMERGE_ABI is 999"),
        "{log}"
    );
    Ok(())
}
