//! The overlay itself: judged by pkgcheck, its eclass by its own tests, its packages by emerge.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use hotmerge_tests::{repository, skipped};

use crate::{
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
fn the_sub_slot_is_the_contracts_major_version() -> Result<()> {
    let ebuild = repository().join("ebuilds/app-admin/hotmerge/hotmerge-0.1.0.ebuild");
    let slot = format!("SLOT=\"0/{}\"", hotmerge_meta::Abi::CURRENT.major);
    ensure!(
        fs::read_to_string(ebuild)?.contains(&slot),
        "the ebuild has no {slot}"
    );
    Ok(())
}

#[test]
fn the_overlays_own_plugins_run_in_the_overlays_host() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::with_host()?;
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
    let verdict = lab.shell("printf '# Title\\n' | hotmerge call announce check --input -")?;
    ensure!(!verdict.is_empty(), "announce does not answer");
    Ok(())
}

/// A vendor of its own is enough for Portage and cargo to cross-compile, without a toolchain
/// for another processor.
#[test]
fn a_cross_build_uses_the_build_machines_driver() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::with_stopped_host()?;
    packages::Greeter::new("alpha", "1.0.0", "Hello").add_to(&lab)?;
    let machine = std::env::consts::ARCH;
    let cross = [
        format!("CHOST={machine}-lab-linux-gnu"),
        format!("CBUILD={machine}-pc-linux-gnu"),
        "ROOT=/target".to_owned(),
    ];
    let cross: Vec<_> = cross.iter().map(String::as_str).collect();
    lab.shell("mkdir -p /target")?;
    let log = lab.emerge_with(&cross, &["--nodeps", "app-misc/alpha"])?;
    let target = format!("{machine}-unknown-linux-gnu");
    ensure!(
        log.contains(&format!("--target {target}")),
        "cargo was not told of a target:\n{log}"
    );
    ensure!(
        log.contains("/usr/bin/cargo-hotmerge hotmerge build-plugins"),
        "{log}"
    );
    lab.shell("hotmerge verify /target/usr/lib64/hotmerge/plugins")?;
    Ok(())
}

#[test]
fn a_new_plugin_interface_makes_portage_rebuild_plugins() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::with_stopped_host()?;
    packages::Greeter::new("alpha", "1.0.0", "Hello").add_to(&lab)?;
    // Wanted for itself: Portage asks only after what somebody wants.
    lab.shell("emerge app-misc/alpha")?;

    let host = lab.path("repos/hotmerge/app-admin/hotmerge");
    let ebuild = fs::read_to_string(host.join("hotmerge-0.1.0.ebuild"))?;
    let update = ["--pretend", "--update", "app-admin/hotmerge"];
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
        plan.contains("hotmerge-0.1.0-r2") && plan.contains("app-misc/alpha"),
        "{plan}"
    );
    Ok(())
}
