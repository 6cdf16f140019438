//! A host under a real systemd, in the lab: hardened as the unit says, notified by emerge.

use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::{
    lab::{Lab, ended, is_root, said},
    packages::Greeter,
    services::systemd_version,
};

const ALPHA_1: Greeter = Greeter::new("alpha", "1.0.0", "Hello");
const ALPHA_2: Greeter = Greeter::new("alpha", "2.0.0", "Good day").refusing("it is Monday");
const ALPHA_3: Greeter = Greeter::new("alpha", "3.0.0", "Good evening");

#[test]
fn a_systemd_host_follows_emerge_and_sandboxes_plugins() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::with_stopped_host()?;
    for version in [ALPHA_1, ALPHA_2, ALPHA_3] {
        version.add_to(&lab)?;
    }
    if systemd_version()? < 253 {
        // It would start the host without waiting until it is ready.
        lab.shell(
            "mkdir /etc/systemd/system/hotmerge.service.d
            printf '[Service]\\nType=notify\\n' > /etc/systemd/system/hotmerge.service.d/type.conf",
        )?;
    }
    let machine = Machine::boot(&lab)?;

    let log = machine.shell("emerge --oneshot =app-misc/alpha-1.0.0 2>&1")?;
    ensure!(
        log.contains("No hotmerge host was notified of alpha: hotmerge.service is not active."),
        "{log}"
    );
    machine.shell("systemctl start hotmerge")?;
    greets(&machine, "Hello")?;

    // The version that refuses to start fails nothing but gets a warning.
    let log = machine.shell("emerge --oneshot =app-misc/alpha-2.0.0 2>&1")?;
    ensure!(
        log.contains("it is Monday") && log.contains("Run 'hotmerge status'"),
        "no warning:\n{log}"
    );
    greets(&machine, "Hello")?;
    machine.shell("systemctl is-active hotmerge")?;

    let log = machine.shell("emerge --oneshot =app-misc/alpha-3.0.0 2>&1")?;
    ensure!(log.contains("Asking the hotmerge host"), "{log}");
    greets(&machine, "Good evening")?;

    a_reload_checks_the_configuration(&machine)?;
    is_confined(&machine)?;
    may_make_sandboxes(&machine)?;
    machine.shell("systemctl stop hotmerge && ! pgrep -x hotmerge")?;
    Ok(())
}

fn greets(machine: &Machine<'_>, greeting: &str) -> Result<()> {
    let said = machine.shell(
        "hotmerge call alpha greet --input - <<< Larry || {
            systemctl status hotmerge; false; } >&2",
    )?;
    ensure!(said == format!("{greeting}, Larry!"), "{said}");
    Ok(())
}

/// Nothing can be checked before a restart stops the host, so a reload is what checks.
fn a_reload_checks_the_configuration(machine: &Machine<'_>) -> Result<()> {
    machine.shell(
        "pid=$(systemctl show --property MainPID --value hotmerge)
        systemctl reload hotmerge
        cp /etc/hotmerge/hotmerge.toml /tmp/good.toml
        echo 'wrong = 1' >> /etc/hotmerge/hotmerge.toml
        if systemctl reload hotmerge; then echo 'a bad configuration reloads'; exit 1; fi
        mv /tmp/good.toml /etc/hotmerge/hotmerge.toml
        systemctl reload hotmerge
        test $(systemctl show --property MainPID --value hotmerge) = $pid",
    )?;
    greets(machine, "Good evening")
}

/// No capability, no way to get one, a system call filter, and a user of its own.
fn is_confined(machine: &Machine<'_>) -> Result<()> {
    machine.shell(
        "pid=$(systemctl show --property MainPID --value hotmerge)
        grep -q '^CapBnd:\\s*0*$' /proc/$pid/status
        grep -q '^NoNewPrivs:\\s*1$' /proc/$pid/status
        grep -q '^Seccomp:\\s*2$' /proc/$pid/status
        test \"$(stat --format %U /proc/$pid)\" = hotmerge",
    )?;
    Ok(())
}

/// The unit as it is, but with a program that does what a host does for a sandboxed plugin:
/// name spaces of all kinds and a root of its own.
fn may_make_sandboxes(machine: &Machine<'_>) -> Result<()> {
    machine.shell(
        "unit=/etc/systemd/system/sandbox.service
        sed -e '/^Exec/d; /^Restart/d; s/^Type=.*/Type=oneshot/' /lib/systemd/system/hotmerge.service > $unit
        echo '[Service]' >> $unit
        echo 'ExecStart=unshare --user --map-root-user --mount --pid --fork --net --ipc --uts --cgroup /usr/bin/sandbox' >> $unit
        printf '%s\\n' '#!/bin/bash' 'set -e' 'mount -t tmpfs sandbox /mnt' 'mkdir /mnt/old' \
            'cd /mnt' 'pivot_root . old' 'test -d /old/etc && test ! -e /etc' > /usr/bin/sandbox
        chmod +x /usr/bin/sandbox
        systemctl daemon-reload
        systemctl start sandbox || { journalctl -u sandbox; systemctl status sandbox; false; }",
    )?;
    Ok(())
}

/// A lab in which systemd has booted. Dropped, it is powered off with everything in it.
struct Machine<'a> {
    lab: &'a Lab,
    outer: Child,
    /// systemd's process id as the lab sees it.
    pid: String,
}

impl<'a> Machine<'a> {
    fn boot(lab: &'a Lab) -> Result<Self> {
        // Nothing of this machine's own is to be started.
        let boot = "rm -rf /etc/systemd/system/*.wants /lib/systemd/system/*.wants
            umount --recursive /sys/fs/cgroup
            mount -t cgroup2 cgroup2 /sys/fs/cgroup
            exec env -i container=portage-lab PATH=\"$PATH\" /lib/systemd/systemd --unit=basic.target";
        let unshare = [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--mount",
            "--cgroup",
        ];
        let mut outer = lab.command(&[&unshare[..], &["bash", "-c", boot]].concat());
        let outer = outer.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let pid = lab
            .shell("until pgrep -x systemd; do sleep 0.1; done")
            .context("systemd does not start")?;
        let machine = Self {
            lab,
            outer,
            pid: pid.trim().to_owned(),
        };
        machine.shell("until systemctl is-system-running > /dev/null 2>&1; do sleep 0.1; done")?;
        Ok(machine)
    }

    /// Runs a shell script beside systemd.
    fn shell(&self, text: &str) -> Result<String> {
        let enter = [
            "nsenter", "--target", &self.pid, "--mount", "--pid", "--cgroup", "--root", "--wd",
        ];
        said(
            &mut self
                .lab
                .command(&[&enter[..], &["bash", "-ec", text]].concat()),
        )
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let kill = ["kill", "-KILL", &self.pid];
        let _ = ended(&mut self.lab.command(&kill));
        let _ = self.outer.wait();
    }
}
