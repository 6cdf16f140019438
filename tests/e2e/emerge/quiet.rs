//! When no host is to be notified, none is, and `emerge` says why in one line.

use std::process::{Child, Stdio};

use anyhow::{Result, ensure};

use crate::{
    calls::greeting,
    lab::{Lab, is_root},
    packages::Greeter,
};

const ALPHA_1: Greeter = Greeter::new("alpha", "1.0.0", "Hello");
const ALPHA_2: Greeter = Greeter::new("alpha", "2.0.0", "Good day");

/// The line, and nothing of a host.
fn is_quiet(log: &str, why: &str) -> Result<()> {
    let line = format!("No hotmerge host was notified of alpha: {why}.");
    ensure!(log.contains(&line), "emerge does not say `{line}`:\n{log}");
    ensure!(
        !log.contains("Asking the hotmerge host"),
        "a host was notified:\n{log}"
    );
    Ok(())
}

#[test]
fn emerge_notifies_only_the_target_systems_host() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::with_stopped_host()?;
    ALPHA_1.add_to(&lab)?;
    ALPHA_2.add_to(&lab)?;
    without_a_running_host(&lab)?;
    another_host_hears_nothing(&lab)?;
    lab.start_host()?;
    ensure!(
        greeting(&lab, "alpha")? == "Hello",
        "a host that starts finds what was merged"
    );

    lab.count_requests()?;
    for_another_root(&lab)?;
    in_a_chroot(&lab)?;
    if_the_user_says_so(&lab)?;
    ensure!(lab.requests()? == 0, "the host was asked to rescan");

    // And to be sure that it would have been:
    lab.emerge(&["=app-misc/alpha-2.0.0"])?;
    ensure!(lab.requests()? == 1, "the host was not asked once");
    ensure!(greeting(&lab, "alpha")? == "Good day");
    Ok(())
}

fn without_a_running_host(lab: &Lab) -> Result<()> {
    let log = lab.emerge(&["=app-misc/alpha-1.0.0"])?;
    is_quiet(&log, "the hotmerge service is not started")?;
    let log = lab.unmerge("app-misc/alpha")?;
    is_quiet(&log, "the hotmerge service is not started")
}

/// A host that somebody runs for other plugins, on the same machine.
fn another_host_hears_nothing(lab: &Lab) -> Result<()> {
    let other = Other::start(lab)?;
    let log = lab.emerge(&["=app-misc/alpha-1.0.0"])?;
    is_quiet(&log, "the hotmerge service is not started")?;
    let status = lab.status_in(OTHER)?;
    ensure!(
        status["host"]["rescans"] == 1,
        "it was notified: {status:#}"
    );
    other.stop(lab)
}

fn for_another_root(lab: &Lab) -> Result<()> {
    lab.shell("mkdir -p /target")?;
    let log = lab.emerge_with(&["ROOT=/target"], &["--nodeps", "=app-misc/alpha-2.0.0"])?;
    is_quiet(&log, "this is a merge for /target")?;
    lab.shell("test -e /target/usr/lib64/hotmerge/plugins/alpha/plugin.meta")?;
    let log = lab.shell("ROOT=/target emerge --unmerge app-misc/alpha 2>&1")?;
    is_quiet(&log, "this is a merge for /target")
}

/// With the machine's own /run, as people mount it.
fn in_a_chroot(lab: &Lab) -> Result<()> {
    let dir = lab.path("");
    let dir = dir.display();
    lab.shell(&format!(
        "mount -t tmpfs chroot /mnt
        mkdir -p /mnt/upper /mnt/scratch /mnt/chroot
        mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/scratch chroot /mnt/chroot
        cp --archive --one-file-system /var/. /mnt/chroot/var/
        for shared in /proc /dev /run {dir} /etc/portage; do
            mount --rbind $shared /mnt/chroot$shared
        done",
    ))?;
    let log = lab.shell("chroot /mnt/chroot emerge --oneshot =app-misc/alpha-2.0.0 2>&1")?;
    is_quiet(&log, "this is a chroot")?;
    the_host_of_a_chroot_is_no_running_one(lab)?;
    lab.shell("umount --lazy --recursive /mnt")?;
    Ok(())
}

/// Its package warns of nothing: what runs is the machine's.
fn the_host_of_a_chroot_is_no_running_one(lab: &Lab) -> Result<()> {
    lab.shell("echo none > /mnt/chroot/usr/lib64/hotmerge/plugins/alpha/libalpha.so")?;
    let emerge = "chroot /mnt/chroot emerge";
    let upgrade = format!("{emerge} --oneshot --usepkgonly app-admin/hotmerge 2>&1");
    let removal = format!("{emerge} --unmerge app-admin/hotmerge 2>&1");
    let log = lab.shell(&upgrade)? + &lab.shell(&removal)?;
    for words in ["host that runs", "would be refused", "hotmerge host runs"] {
        ensure!(!log.contains(words), "a chroot's package says so:\n{log}");
    }
    lab.shell("test ! -e /mnt/chroot/usr/bin/hotmerge -a -e /usr/bin/hotmerge")?;
    Ok(())
}

fn if_the_user_says_so(lab: &Lab) -> Result<()> {
    lab.shell("touch /etc/hotmerge/no-notify")?;
    let log = lab.emerge(&["=app-misc/alpha-1.0.0"])?;
    is_quiet(&log, "/etc/hotmerge/no-notify says so")?;
    lab.shell("rm /etc/hotmerge/no-notify")?;
    Ok(())
}

/// A host of somebody's own.
struct Other(Child);

const OTHER: &str = "/other/run";

impl Other {
    fn start(lab: &Lab) -> Result<Self> {
        lab.shell("mkdir -p /other/plugins")?;
        let serve = format!(
            "hotmerge serve --plugin-dir=/other/plugins --state-dir=/other/state --runtime-dir={OTHER}"
        );
        let mut serve = lab.command(&serve.split(' ').collect::<Vec<_>>());
        let process = serve.stderr(Stdio::null()).stdout(Stdio::null()).spawn()?;
        lab.shell(&format!(
            "until hotmerge status --runtime-dir={OTHER} > /dev/null 2>&1; do sleep 0.1; done"
        ))?;
        Ok(Self(process))
    }

    fn stop(mut self, lab: &Lab) -> Result<()> {
        lab.host(&format!("stop --runtime-dir={OTHER}"))?;
        ensure!(self.0.wait()?.success(), "the other host did not end well");
        Ok(())
    }
}
