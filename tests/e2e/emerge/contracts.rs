//! The host moves on to another contract, while a plugin speaks the one before.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{
    artifacts,
    calls::{Calls, greeting},
    lab::{Lab, ended, is_root},
    packages::Greeter,
};

const NEXT: u16 = hotmerge_abi::ABI_MAJOR + 1;

const ALPHA_1: Greeter = Greeter::new("alpha", "1.0.0", "Hello");
const ALPHA_2: Greeter = Greeter::new("alpha", "2.0.0", "Good day").speaking(NEXT);

const HOST: &str = "=app-admin/hotmerge-0.1.0";
const NEXT_HOST: &str = "=app-admin/hotmerge-0.1.0-r2";

/// One story, because each step begins where the one before ended. Portage itself would not take
/// the host alone (`portage_keeps_a_host_that_plugins_need`): somebody forces it.
#[test]
fn an_upgrade_to_another_contract_loses_no_plugin() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let next = artifacts::next_host_packages(NEXT)?;
    let lab = Lab::with_host()?;
    ALPHA_1.add_to(&lab)?;
    ALPHA_2.add_to(&lab)?;
    lab.emerge(&["=app-misc/alpha-1.0.0"])?;
    let first = lab.plugin("alpha")?;
    let calls = Calls::start(&lab, &["alpha"])?;
    let host = lab.shell("head -n 1 /run/hotmerge/hotmerge.pid")?;

    next.copy_to(&lab.path("pkgs"))?;
    let lost = format!("alpha 1.0.0: built for ABI {}.", NEXT - 1);
    the_merge_names_what_would_be_lost(&lab, NEXT_HOST, &lost)?;
    nothing_restarts_into_it(&lab, &lost)?;
    a_build_with_a_false_claim_dies(&lab)?;
    the_new_plugin_waits_for_the_new_host(&lab)?;
    ensure!(lab.shell("head -n 1 /run/hotmerge/hotmerge.pid")? == host);
    ensure!(calls.none_failed()? == ["Hello"]);
    lab.shell("rc-service hotmerge checkconfig && rc-service hotmerge restart")?;
    ensure!(greeting(&lab, "alpha")? == "Good day");
    ensure!(lab.plugin("alpha")?.refused.is_none());

    // And back, with a plugin that only the newer host can run.
    let lost = format!("alpha 2.0.0: built for ABI {NEXT}.");
    the_merge_names_what_would_be_lost(&lab, HOST, &lost)?;
    nothing_restarts_into_it(&lab, &lost)?;
    lab.shell("rc-service hotmerge stop && rc-service hotmerge start")?;
    let refused = lab.plugin("alpha")?.refused.context("it is refused")?;
    let shown = lab.shell("hotmerge status; hotmerge history alpha")?;
    ensure!(
        refused.contains(&format!("built for ABI {NEXT}.")) && !shown.contains("damaged"),
        "{refused}\n{shown}"
    );
    let hash = first.hash.context("it ran")?;
    lab.host(&format!("rollback alpha --to {hash}"))?;
    ensure!(
        greeting(&lab, "alpha")? == "Hello",
        "what it can run is kept"
    );
    Ok(())
}

fn the_merge_names_what_would_be_lost(lab: &Lab, host: &str, lost: &str) -> Result<()> {
    let log = lab.emerge(&["--usepkgonly", "--nodeps", host])?;
    ensure!(
        log.contains("would refuse") && log.contains(lost),
        "the merge does not say `{lost}`:\n{log}"
    );
    Ok(())
}

fn nothing_restarts_into_it(lab: &Lab, lost: &str) -> Result<()> {
    let before = lab.shell("head -n 1 /run/hotmerge/hotmerge.pid")?;
    for action in ["checkconfig", "restart"] {
        let (code, said) = ended(&mut lab.command(&["rc-service", "hotmerge", action]))?;
        ensure!(
            code != Some(0) && said.contains(lost),
            "`{action}` does not say `{lost}`: {said}"
        );
    }
    ensure!(lab.shell("head -n 1 /run/hotmerge/hotmerge.pid")? == before);
    Ok(())
}

fn a_build_with_a_false_claim_dies(lab: &Lab) -> Result<()> {
    let package = lab.path("repos/made/app-misc/alpha");
    let text = fs::read_to_string(package.join("alpha-1.0.0.ebuild"))?;
    let claim = format!("HOTMERGE_ABI={}\n", NEXT - 1);
    ensure!(text.contains(&claim));
    let text = text.replace(&claim, &format!("HOTMERGE_ABI={NEXT}\n"));
    fs::write(package.join("alpha-1.0.0-r9.ebuild"), text)?;
    let merge = ["emerge", "--oneshot", "=app-misc/alpha-1.0.0-r9"];
    let (code, log) = ended(&mut lab.command(&merge))?;
    let reason = format!(
        "built for plugin interface {}, but HOTMERGE_ABI is {NEXT}",
        NEXT - 1
    );
    ensure!(code != Some(0) && log.contains(&reason), "{log}");
    ensure!(greeting(lab, "alpha")? == "Hello", "it was not touched");
    Ok(())
}

/// The host that runs is still the old one.
fn the_new_plugin_waits_for_the_new_host(lab: &Lab) -> Result<()> {
    let log = lab.emerge(&["=app-misc/alpha-2.0.0"])?;
    ensure!(
        log.contains(&format!("alpha 2.0.0: refused: built for ABI {NEXT}.")),
        "the merge does not say that the host refuses it:\n{log}"
    );
    ensure!(greeting(lab, "alpha")? == "Hello");
    Ok(())
}
