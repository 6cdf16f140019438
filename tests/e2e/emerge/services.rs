//! The services: what systemd says of the unit, and what OpenRC does with the init script.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

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
    let mut text = fs::read_to_string(&unit)?.replace("/usr/bin/hotmerge", "/bin/true");
    if systemd_version()? < 253 {
        // It does not know that type yet, and has the same opinion of everything else.
        text = text.replace("Type=notify-reload", "Type=notify");
    }
    fs::write(&unit, text)?;
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

/// Of this machine, which is the lab's too.
pub(super) fn systemd_version() -> Result<u32> {
    let told = said(Command::new("systemd-analyze").arg("--version"))?;
    let version = told.split_ascii_whitespace().nth(1);
    let version = version.with_context(|| format!("no version in {told}"))?;
    let digits = version.split(|sign: char| !sign.is_ascii_digit()).next();
    Ok(digits.unwrap_or_default().parse()?)
}

#[test]
fn openrc_starts_reloads_restarts_and_stops_the_host() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::with_stopped_host()?;
    let alpha = Greeter::new("alpha", "1.0.0", "Hello").reading("/srv/gate/open");
    alpha.add_to(&lab)?;
    lab.emerge(&["app-misc/alpha"])?;
    lab.shell(
        "mkdir /srv/gate && mkfifo -m 644 /srv/gate/open
        printf '[plugin.alpha]\\nallow = [\"fs:/srv/gate:ro\"]\\n' >> /etc/hotmerge/hotmerge.toml",
    )?;

    a_bad_configuration_does_not_start(&lab)?;
    a_host_without_sandbox_does_not_start(&lab)?;

    started_means_that_plugins_answer(&lab)?;
    runs_as_its_own_user(&lab)?;

    let calls = Calls::start(&lab, &["alpha"])?;
    lab.shell("rc-service hotmerge checkconfig && rc-service hotmerge reload && rc-service hotmerge status")?;
    a_bad_configuration_neither_reloads_nor_restarts(&lab)?;
    options_of_the_user_are_checked_too(&lab)?;
    calls.none_failed()?;

    a_changed_configuration_waits_for_a_restart(&lab)?;
    a_restart_checks_once(&lab)?;
    a_killed_host_comes_back(&lab)?;
    a_restart_that_would_fail_ends_no_host(&lab)?;
    a_rotated_log_goes_on(&lab)?;
    let log = lab.unmerge("app-admin/hotmerge")?;
    ensure!(
        log.contains("still runs although its program is removed"),
        "a removed host runs on, and nobody says so:\n{log}"
    );
    lab.emerge(&["--usepkgonly", "app-admin/hotmerge"])?;

    lab.shell("rc-service hotmerge stop")?;
    let (code, _) = ended(&mut lab.command(&["hotmerge", "status"]))?;
    ensure!(code == Some(4), "a stopped host answers");
    lab.shell("! pgrep -x hotmerge")?;
    Ok(())
}

/// The plugin starts as long as somebody has the other end of the FIFO open that it reads.
fn started_means_that_plugins_answer(lab: &Lab) -> Result<()> {
    let hold = "exec 3> /srv/gate/open
        echo held
        cat
        rm /srv/gate/open
        echo > /srv/gate/open";
    let mut start = lab.command(&["rc-service", "hotmerge", "start"]);
    let mut start = start.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut gate = lab.command(&["bash", "-ec", hold]);
    let mut gate = gate.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let stdout = gate.stdout.take().context("its output is a pipe")?;
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line == "held\n", "the plugin does not start");
    ensure!(greeting(lab, "alpha").is_err(), "it answers already");
    ensure!(start.try_wait()?.is_none(), "nobody waits for the plugin");
    drop(gate.stdin.take());
    ensure!(start.wait()?.success() && gate.wait()?.success());
    ensure!(greeting(lab, "alpha")? == "Hello");
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

/// As the supervisor takes them, with quotes.
fn options_of_the_user_are_checked_too(lab: &Lab) -> Result<()> {
    let before = pid(lab)?;
    let with = |options: &str, action: &str| {
        let script = format!(
            "cp /etc/conf.d/hotmerge /tmp/confd
            echo \"hotmerge_args=\\\"{options}\\\"\" >> /etc/conf.d/hotmerge
            rc-service hotmerge {action}
            code=$?
            mv /tmp/confd /etc/conf.d/hotmerge
            exit $code"
        );
        ended(&mut lab.command(&["bash", "-c", &script]))
    };
    for action in ["checkconfig", "reload", "restart"] {
        let (code, said) = with("--log-format=song", action)?;
        ensure!(
            code != Some(0) && said.contains("--log-format"),
            "`{action}` took a wrong option: {said}"
        );
        ensure!(pid(lab)? == before, "`{action}` ended the host");
    }
    let (code, said) = with("--state-dir '/srv/a state'", "checkconfig")?;
    ensure!(
        code == Some(0) && said.contains("`/srv/a state` does not exist yet"),
        "an option is not checked as it was written: {said}"
    );
    Ok(())
}

/// Without its worker a host would take its plugins into its own process.
fn a_host_without_sandbox_does_not_start(lab: &Lab) -> Result<()> {
    let worker = "/usr/libexec/hotmerge/hotmerge-worker";
    let script = format!(
        "mv {worker} {worker}.away
        rc-service hotmerge start
        code=$?
        mv {worker}.away {worker}
        exit $code"
    );
    let (code, said) = ended(&mut lab.command(&["bash", "-c", &script]))?;
    ensure!(
        code != Some(0) && said.contains("hotmerge-worker"),
        "started without any sandbox: {said}"
    );
    Ok(())
}

fn a_changed_configuration_waits_for_a_restart(lab: &Lab) -> Result<()> {
    let word = "`keep_versions` waits for a restart of the host";
    let reload = "rc-service hotmerge reload 2>&1";
    ensure!(!lab.shell(reload)?.contains(word), "nothing was changed");
    lab.shell("sed -i '1i keep_versions = 2' /etc/hotmerge/hotmerge.toml")?;
    let said = lab.shell(reload)?;
    ensure!(said.contains(word), "the change is not reported: {said}");
    Ok(())
}

fn a_restart_checks_once(lab: &Lab) -> Result<()> {
    let before = pid(lab)?;
    let said = lab.shell("rc-service hotmerge restart 2>&1")?;
    ensure!(pid(lab)? != before, "a restart is another process");
    let checks = said.matches("Checking /etc/hotmerge/hotmerge.toml").count();
    ensure!(checks == 1, "checked {checks} times: {said}");
    let said = lab.shell("rc-service hotmerge reload 2>&1")?;
    ensure!(
        !said.contains("waits for a restart"),
        "it was restarted: {said}"
    );
    Ok(())
}

/// What stands in the directory is not a plugin any more; what runs was loaded before.
fn a_restart_that_would_fail_ends_no_host(lab: &Lab) -> Result<()> {
    let before = pid(lab)?;
    let file = "/usr/lib64/hotmerge/plugins/alpha/libalpha.so";
    lab.shell(&format!(
        "cp {file} /tmp/good.so && echo none > /tmp/bad.so && mv /tmp/bad.so {file}"
    ))?;
    for action in ["checkconfig", "restart"] {
        let (code, said) = ended(&mut lab.command(&["rc-service", "hotmerge", action]))?;
        ensure!(
            code != Some(0) && said.contains("alpha 1.0.0: "),
            "`{action}` does not name the plugin: {said}"
        );
        ensure!(pid(lab)? == before, "`{action}` ended the host");
    }
    // The running host refuses it, too, and goes on with what it has.
    let (code, said) = ended(&mut lab.command(&["rc-service", "hotmerge", "reload"]))?;
    ensure!(
        code != Some(0) && said.contains("alpha"),
        "a reload does not name the plugin: {said}"
    );
    ensure!(pid(lab)? == before, "a reload ended the host");
    // An upgrade of the host says so before anybody thinks of a restart.
    let log = lab.emerge(&["--usepkgonly", "app-admin/hotmerge"])?;
    ensure!(
        log.contains("would refuse") && log.contains("alpha 1.0.0: "),
        "the upgrade names no plugin: {log}"
    );
    let said = lab.shell("rc-service hotmerge stop && rc-service hotmerge start 2>&1")?;
    ensure!(said.contains("alpha 1.0.0: "), "a start warns: {said}");
    lab.shell(&format!(
        "mv /tmp/good.so {file} && rc-service hotmerge checkconfig && hotmerge reload alpha"
    ))?;
    Ok(())
}

/// As the system's timer does it, with the file that the package has installed.
fn a_rotated_log_goes_on(lab: &Lab) -> Result<()> {
    let log = "/var/log/hotmerge.log";
    lab.shell(&format!(
        "never() {{ if \"$@\"; then echo \"true: $*\"; exit 1; fi }}
        logrotate --force --state /run/logrotate.state /etc/logrotate.d/hotmerge
        grep -q ready {log}.1
        never grep -q ready {log}
        touch /usr/lib64/hotmerge/plugins/stray
        hotmerge reload || true
        grep -q stray {log}
        never grep -q stray {log}.1
        test $(tr -cd '\\0' < {log} | wc -c) = 0
        rm /usr/lib64/hotmerge/plugins/stray
        hotmerge reload"
    ))?;
    Ok(())
}

fn a_killed_host_comes_back(lab: &Lab) -> Result<()> {
    let before = pid(lab)?;
    lab.shell(&format!(
        "kill -KILL {before}
        until hotmerge reload > /dev/null 2>&1; do sleep 0.1; done"
    ))?;
    ensure!(pid(lab)? != before, "the supervisor started another one");
    ensure!(greeting(lab, "alpha")? == "Hello");
    Ok(())
}
