//! A running host follows every `emerge`, and nobody who calls it notices.

use anyhow::{Context as _, Result, ensure};

use crate::{
    calls::{Calls, greeting},
    lab::{Lab, is_root},
    packages::Greeter,
    traces::{Names, tell_confinement, was_confined},
};

const ALPHA_1: Greeter = Greeter::new("alpha", "1.0.0", "Hello");
const ALPHA_2: Greeter = Greeter::new("alpha", "2.0.0", "Good day");
const ALPHA_3: Greeter = Greeter::new("alpha", "3.0.0", "Never").refusing("the moon is full");
const BETA_1: Greeter = Greeter::new("beta", "1.0.0", "Ahoy");
const BETA_2: Greeter = Greeter::new("beta", "2.0.0", "Moin");

/// One story, because each step begins where the one before ended, as on a real machine.
#[test]
fn emerge_upgrades_a_running_host_without_failed_calls() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::with_host()?;
    for version in [ALPHA_1, ALPHA_2, ALPHA_3, BETA_1, BETA_2] {
        version.add_to(&lab)?;
    }
    // As many people have it. Plugins are then copied into their directory, not renamed.
    lab.shell(&format!(
        "mount -t tmpfs -o mode=0755 portage {}",
        lab.path("tmp").display()
    ))?;
    tell_confinement(&lab)?;

    let log = lab.emerge(&["=app-misc/alpha-1.0.0", "=app-misc/beta-1.0.0"])?;
    for (name, hello) in [("alpha", "Hello"), ("beta", "Ahoy")] {
        ensure!(
            lab.plugin(name)?.generation == 1,
            "{name} was not loaded once"
        );
        ensure!(greeting(&lab, name)? == hello);
        portage_stripped(&log, name)?;
        was_confined(&lab, &log)?;
    }
    let calls = Calls::start(&lab, &["alpha", "beta"])?;
    let beta = lab.plugin("beta")?;
    let first = lab.plugin("alpha")?;

    an_upgrade_reloads_one_plugin(&lab)?;
    let second = lab.plugin("alpha")?;
    ensure!(second.hash != first.hash, "other code has another hash");

    a_revision_with_the_same_code_reloads_nothing(&lab)?;
    merging_again_reloads_nothing(&lab)?;
    ensure!(lab.plugin("alpha")? == second);

    lab.emerge(&["=app-misc/alpha-1.0.0"])?;
    let third = lab.plugin("alpha")?;
    ensure!(
        third.generation == 3 && third.version == "1.0.0",
        "a downgrade reloads: {third:?}"
    );
    ensure!(
        third.hash == first.hash,
        "the same sources give the same hash"
    );

    a_failing_start_leaves_the_old_version_serving(&lab)?;
    ensure!(
        lab.plugin("beta")? == beta,
        "all this was none of beta's business"
    );

    two_upgrades_in_one_emerge_reload_each_once(&lab)?;
    let greetings = calls.none_failed()?;
    ensure!(
        greetings == ["Hello", "Ahoy", "Good day", "Moin"],
        "{greetings:?}"
    );

    splitting_debug_information_reloads_nothing(&lab)?;
    a_removal_ends_the_plugin_and_no_other(&lab)
}

/// Without `scanelf` Portage's strip does nothing and says nothing, and all the promises here
/// would be easy to keep.
fn portage_stripped(log: &str, plugin: &str) -> Result<()> {
    let mut lines = log
        .lines()
        .map(str::trim)
        .skip_while(|line| !line.starts_with("strip: "));
    let file = format!("lib{plugin}.so");
    ensure!(
        lines.any(|line| line.ends_with(&file)),
        "Portage did not strip {file}:\n{log}"
    );
    Ok(())
}

fn an_upgrade_reloads_one_plugin(lab: &Lab) -> Result<()> {
    let beta = lab.plugin("beta")?;
    let names = Names::watch(lab, "/usr/lib64/hotmerge/plugins/alpha")?;
    let log = lab.emerge(&["=app-misc/alpha-2.0.0"])?;
    portage_stripped(&log, "alpha")?;
    let names = names.seen();
    ensure!(
        names.contains(&"libalpha.so#new".to_owned()),
        "there was no half-written file to see: {names:?}"
    );
    ensure!(
        log.contains("Asking the hotmerge host"),
        "emerge does not say so:\n{log}"
    );
    let alpha = lab.plugin("alpha")?;
    ensure!(
        (alpha.generation, &*alpha.version) == (2, "2.0.0"),
        "{alpha:?}"
    );
    ensure!(greeting(lab, "alpha")? == "Good day");
    ensure!(lab.plugin("beta")? == beta, "beta keeps its generation");
    Ok(())
}

fn a_revision_with_the_same_code_reloads_nothing(lab: &Lab) -> Result<()> {
    let before = lab.plugin("alpha")?;
    let log = lab.emerge(&["=app-misc/alpha-2.0.0-r1"])?;
    ensure!(log.contains("[ ok ]"), "the host was not notified:\n{log}");
    ensure!(lab.plugin("alpha")? == before, "a revision bump reloaded");
    Ok(())
}

fn splitting_debug_information_reloads_nothing(lab: &Lab) -> Result<()> {
    // The compiler may make other instructions where it makes debug information, too.
    let flags = ["RUSTFLAGS=-g", "CARGO_PROFILE_RELEASE_STRIP=none"];
    lab.emerge_with(&flags, &["=app-misc/alpha-2.0.0"])?;
    let before = lab.plugin("alpha")?;
    // With it split off, build-ids are salted with the version: other bytes.
    let split = [&flags[..], &["FEATURES=splitdebug"]].concat();
    let mut build_ids = Vec::new();
    for version in ["2.0.0", "2.0.0-r1"] {
        let log = lab.emerge_with(&split, &[&format!("=app-misc/alpha-{version}")])?;
        portage_stripped(&log, "alpha")?;
        lab.shell("test -n \"$(find /usr/lib/debug -name 'libalpha.so*')\"")
            .context("debug information was not split off")?;
        build_ids.push(
            lab.shell(
                "readelf -n /usr/lib64/hotmerge/plugins/alpha/libalpha.so | grep 'Build ID'",
            )?,
        );
        ensure!(
            lab.plugin("alpha")? == before,
            "splitting debug information reloaded"
        );
    }
    ensure!(
        build_ids[0] != build_ids[1],
        "the build-id was not salted: {build_ids:?}"
    );
    Ok(())
}

fn merging_again_reloads_nothing(lab: &Lab) -> Result<()> {
    let before = lab.plugin("alpha")?;
    lab.emerge(&["=app-misc/alpha-2.0.0-r1"])?;
    ensure!(
        lab.plugin("alpha")? == before,
        "the same package again reloaded"
    );
    Ok(())
}

fn a_failing_start_leaves_the_old_version_serving(lab: &Lab) -> Result<()> {
    let before = lab.plugin("alpha")?;
    let log = lab
        .emerge(&["=app-misc/alpha-3.0.0"])
        .context("emerge itself succeeds")?;
    ensure!(
        log.contains("Run 'hotmerge status'"),
        "there is no warning:\n{log}"
    );
    ensure!(
        log.contains("the moon is full"),
        "emerge does not show the reason:\n{log}"
    );
    let after = lab.plugin("alpha")?;
    ensure!(
        (after.generation, &after.hash) == (before.generation, &before.hash),
        "{after:?}"
    );
    ensure!(
        after
            .refused
            .is_some_and(|why| why.contains("the moon is full"))
    );
    ensure!(greeting(lab, "alpha")? == "Hello", "the old version serves");
    let shown = lab.shell("hotmerge status")?;
    ensure!(
        shown.contains("the moon is full"),
        "`hotmerge status` does not say why:\n{shown}"
    );
    Ok(())
}

fn two_upgrades_in_one_emerge_reload_each_once(lab: &Lab) -> Result<()> {
    let before = [lab.plugin("alpha")?, lab.plugin("beta")?];
    lab.emerge(&["=app-misc/alpha-2.0.0", "=app-misc/beta-2.0.0"])?;
    let after = [lab.plugin("alpha")?, lab.plugin("beta")?];
    for (before, after) in before.iter().zip(&after) {
        ensure!(
            after.generation == before.generation + 1,
            "{before:?} became {after:?}"
        );
        ensure!(
            after.version == "2.0.0" && after.refused.is_none(),
            "{after:?}"
        );
    }
    Ok(())
}

fn a_removal_ends_the_plugin_and_no_other(lab: &Lab) -> Result<()> {
    let alpha = lab.plugin("alpha")?;
    let calls = Calls::start(lab, &["alpha"])?;
    let log = lab.unmerge("app-misc/beta")?;
    ensure!(
        log.contains("Asking the hotmerge host"),
        "emerge does not say so:\n{log}"
    );
    ensure!(lab.plugin("beta").is_err(), "beta still runs");
    ensure!(lab.plugin("alpha")? == alpha, "alpha was touched");
    lab.shell("test ! -e /usr/lib64/hotmerge/plugins/beta")?;
    calls.none_failed()?;
    Ok(())
}
