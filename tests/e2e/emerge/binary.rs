//! Binary packages: built once, merged elsewhere.

use anyhow::{Result, ensure};

use crate::{
    artifacts::Artifacts,
    calls::{Calls, greeting},
    lab::{Lab, is_root},
    packages::Greeter,
};

const ALPHA_1: Greeter = Greeter::new("alpha", "1.0.0", "Hello");
const ALPHA_2: Greeter = Greeter::new("alpha", "2.0.0", "Good day");

#[test]
fn a_binary_package_keeps_its_hash_and_notifies() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let builder = Lab::with_host()?;
    for version in [ALPHA_1, ALPHA_2] {
        version.add_to(&builder)?;
        // A user who wants no host notified on the build machine decides nothing for other users.
        builder.shell("touch /etc/hotmerge/no-notify")?;
        let package = format!("=app-misc/alpha-{}", version.version);
        let log = builder.emerge(&["--buildpkg", &package])?;
        ensure!(
            !log.contains("Asking the hotmerge host"),
            "it was notified:\n{log}"
        );
    }
    builder.host("reload alpha")?;
    let built = builder.plugin("alpha")?;

    let target = Lab::with_host()?;
    Artifacts::at(builder.path("pkgs")).copy_to(&target.path("pkgs"))?;
    target.emerge(&["--usepkgonly", "=app-misc/alpha-1.0.0"])?;
    let first = target.plugin("alpha")?;
    let calls = Calls::start(&target, &["alpha"])?;
    let log = target.emerge(&["--usepkgonly", "=app-misc/alpha-2.0.0"])?;
    ensure!(
        log.contains("Asking the hotmerge host"),
        "the host was not notified:\n{log}"
    );
    ensure!(
        !log.contains("Compiling"),
        "this was not a binary package:\n{log}"
    );

    let merged = target.plugin("alpha")?;
    ensure!(
        merged.hash == built.hash && merged.hash != first.hash,
        "{built:?} {merged:?}"
    );
    ensure!(merged.generation == 2 && greeting(&target, "alpha")? == "Good day");
    calls.none_failed()?;

    // Its pkg_postrm is the one that was saved on the build machine.
    target.unmerge("app-misc/alpha")?;
    ensure!(target.plugin("alpha").is_err(), "alpha still runs");
    Ok(())
}
