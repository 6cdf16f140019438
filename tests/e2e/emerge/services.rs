//! The services: what systemd says of the unit, and what OpenRC does with the init script.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use hotmerge_tests::repository;

use crate::{
    calls::{Calls, greeting},
    lab::{Lab, ended, is_root, said},
    packages::Greeter,
};

#[test]
fn systemd_accepts_the_unit() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let render = repository().join("scripts/services/render");
    said(Command::new(&render).arg(dir.path()).arg("bindir=/usr/bin"))?;
    let unit = dir.path().join("hotmerge.service");
    // The check wants to see the program, which is installed by emerge and not here.
    fs::write(
        &unit,
        fs::read_to_string(&unit)?.replace("/usr/bin/hotmerge", "/bin/true"),
    )?;
    let verify = |unit| {
        ended(
            Command::new("systemd-analyze")
                .args(["verify", "--man=no"])
                .arg(unit),
        )
    };
    let (code, said) = verify(&unit)?;
    ensure!(
        code == Some(0) && said.trim().is_empty(),
        "systemd complains: {said}"
    );

    fs::write(
        &unit,
        fs::read_to_string(&unit)?.replace("Type=notify", "Type=telepathy"),
    )?;
    ensure!(
        !verify(&unit)?.1.trim().is_empty(),
        "systemd takes anything"
    );
    Ok(())
}

#[test]
fn openrc_starts_checks_reloads_restarts_and_stops_the_host() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::with_stopped_host()?;
    let alpha = Greeter::new("alpha", "1.0.0", "Hello");
    alpha.add_to(&lab)?;
    lab.emerge(&["app-misc/alpha"])?;

    a_bad_configuration_does_not_start(&lab)?;

    lab.start_host()?;
    ensure!(
        greeting(&lab, "alpha")? == "Hello",
        "started means that it answers"
    );
    runs_as_its_own_user(&lab)?;

    let calls = Calls::start(&lab, &["alpha"])?;
    lab.shell("rc-service hotmerge checkconfig && rc-service hotmerge reload && rc-service hotmerge status")?;
    a_bad_configuration_neither_reloads_nor_restarts(&lab)?;
    calls.none_failed()?;

    let before = pid(&lab)?;
    lab.shell("rc-service hotmerge restart")?;
    ensure!(pid(&lab)? != before, "a restart is another process");
    a_killed_host_comes_back(&lab)?;

    lab.shell("rc-service hotmerge stop")?;
    let (code, _) = ended(&mut lab.command(&["hotmerge", "status"]))?;
    ensure!(code == Some(4), "a stopped host answers");
    lab.shell("! pgrep -x hotmerge")?;
    Ok(())
}

fn pid(lab: &Lab) -> Result<u64> {
    lab.status()?["host"]["pid"]
        .as_u64()
        .context("a process id")
}

/// The first line of the host's own pid file is the process that answers.
fn runs_as_its_own_user(lab: &Lab) -> Result<()> {
    let pid = pid(lab)?;
    lab.shell(&format!(
        "test \"$(head -n 1 /run/hotmerge/hotmerge.pid)\" = {pid}
        test \"$(stat -c %U /proc/{pid})\" = hotmerge
        test \"$(stat -c '%a %U %G' /run/hotmerge)\" = '750 hotmerge hotmerge'"
    ))?;
    Ok(())
}

fn a_bad_configuration_does_not_start(lab: &Lab) -> Result<()> {
    let (code, said) = with_a_bad_configuration(lab, "start")?;
    ensure!(code != Some(0), "started with a bad configuration: {said}");
    ensure!(said.contains("wrong"), "does not say what is wrong: {said}");
    Ok(())
}

fn a_bad_configuration_neither_reloads_nor_restarts(lab: &Lab) -> Result<()> {
    let before = pid(lab)?;
    for action in ["checkconfig", "reload", "restart"] {
        let (code, said) = with_a_bad_configuration(lab, action)?;
        ensure!(
            code != Some(0),
            "`{action}` took a bad configuration: {said}"
        );
        ensure!(pid(lab)? == before, "`{action}` ended the host");
    }
    Ok(())
}

fn with_a_bad_configuration(lab: &Lab, action: &str) -> Result<(Option<i32>, String)> {
    let script = format!(
        "cp /etc/hotmerge/hotmerge.toml /tmp/good.toml
        echo 'wrong = 1' > /etc/hotmerge/hotmerge.toml
        rc-service hotmerge {action}
        code=$?
        mv /tmp/good.toml /etc/hotmerge/hotmerge.toml
        exit $code"
    );
    ended(&mut lab.command(&["bash", "-c", &script]))
}

fn a_killed_host_comes_back(lab: &Lab) -> Result<()> {
    let before = pid(lab)?;
    lab.shell(&format!(
        "kill -KILL {before}
        until hotmerge status > /dev/null 2>&1; do sleep 0.1; done"
    ))?;
    ensure!(pid(lab)? != before, "the supervisor started another one");
    ensure!(greeting(lab, "alpha")? == "Hello");
    Ok(())
}
