//! What `emerge` reports about the host: correct, soon, and about the merged plugins only.

use anyhow::{Result, ensure};

use crate::{
    calls::greeting,
    lab::{Lab, is_root},
    packages::Greeter,
};

const ALPHA_1: Greeter = Greeter::new("alpha", "1.0.0", "Hello");
const ALPHA_2: Greeter = Greeter::new("alpha", "2.0.0", "Good day");
const ALPHA_3: Greeter = Greeter::new("alpha", "3.0.0", "Never").refusing("the moon is full");
const ALPHA_4: Greeter = Greeter::new("alpha", "4.0.0", "Never").reading("/srv/gate/open");

#[test]
fn emerge_says_what_became_of_its_own_plugins() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let lab = Lab::with_host()?;
    for version in [ALPHA_1, ALPHA_2, ALPHA_3, ALPHA_4] {
        version.add_to(&lab)?;
    }
    // A neighbour that no host can use is none of alpha's business.
    lab.shell(
        "mkdir /usr/lib64/hotmerge/plugins/broken
        echo 'format = 1' > /usr/lib64/hotmerge/plugins/broken/plugin.meta",
    )?;
    let log = lab.emerge(&["=app-misc/alpha-1.0.0"])?;
    says(&log, &["alpha 1.0.0: loaded"], &["broken", "refused"])?;
    // The watcher is faster than the package manager, and took it before anybody asked.
    let log = lab.emerge(&["=app-misc/alpha-2.0.0"])?;
    says(&log, &["alpha 2.0.0: reloaded"], &["unchanged", "broken"])?;

    a_refusal_is_named(&lab)?;
    a_host_that_hangs_holds_nobody_up(&lab)?;
    a_plugin_that_hangs_is_tried_once(&lab)?;
    a_host_elsewhere_is_found(&lab)?;

    let log = lab.unmerge("app-misc/alpha")?;
    says(&log, &["alpha 2.0.0: removed"], &["broken", "not known"])?;
    the_hosts_own_package_finds_it_elsewhere(&lab)
}

fn says(log: &str, lines: &[&str], never: &[&str]) -> Result<()> {
    // What is merged has these words too; what the host says comes last.
    let told = log
        .split_once("Asking the hotmerge host")
        .map_or("", |(_, told)| told);
    for line in lines {
        ensure!(told.contains(line), "emerge does not say `{line}`:\n{log}");
    }
    for word in never {
        ensure!(!told.contains(word), "emerge says `{word}`:\n{log}");
    }
    Ok(())
}

fn a_refusal_is_named(lab: &Lab) -> Result<()> {
    let log = lab.emerge(&["=app-misc/alpha-3.0.0"])?;
    let lines = [
        "alpha 3.0.0: refused: the moon is full",
        "Run 'hotmerge status'",
    ];
    says(&log, &lines, &["broken"])?;
    ensure!(greeting(lab, "alpha")? == "Good day");
    Ok(())
}

fn a_host_that_hangs_holds_nobody_up(lab: &Lab) -> Result<()> {
    lab.shell("kill -STOP $(head -n 1 /run/hotmerge/hotmerge.pid)")?;
    let log = lab.emerge(&["=app-misc/alpha-1.0.0"])?;
    let lines = ["the host did not answer within 8000 ms", "is merged"];
    says(&log, &lines, &["refused", "keeps"])?;
    lab.shell("kill -CONT $(head -n 1 /run/hotmerge/hotmerge.pid)")?;
    // It was asked, and does it now that it can.
    lab.shell("until hotmerge status | grep -q 'alpha *1.0.0'; do sleep 0.1; done")?;
    Ok(())
}

fn a_host_elsewhere_is_found(lab: &Lab) -> Result<()> {
    lab.shell(
        "echo 'hotmerge_runtime_dir=/run/elsewhere' >> /etc/conf.d/hotmerge
        rm -r /usr/lib64/hotmerge/plugins/broken
        rc-service hotmerge stop
        rc-service hotmerge start",
    )?;
    let log = lab.emerge(&["=app-misc/alpha-2.0.0"])?;
    says(&log, &["alpha 2.0.0: reloaded"], &["No hotmerge host"])?;
    let log = lab.emerge(&["=app-misc/alpha-3.0.0"])?;
    let advice = ["hotmerge status --runtime-dir /run/elsewhere'"];
    says(&log, &advice, &[])?;
    lab.emerge(&["=app-misc/alpha-2.0.0"])?;
    Ok(())
}

/// Nobody ever opens the other end of the FIFO that the plugin reads as it starts.
fn a_plugin_that_hangs_is_tried_once(lab: &Lab) -> Result<()> {
    lab.shell(
        "mkdir /srv/gate && mkfifo -m 644 /srv/gate/open
        printf '[plugin.alpha]\\nallow = [\"fs:/srv/gate:ro\"]\\n' >> /etc/hotmerge/hotmerge.toml
        sed -i '1i start_ms = 12000' /etc/hotmerge/hotmerge.toml
        hotmerge reload --config || true",
    )?;
    let before = lab.host("history alpha")?.matches("reloading").count();
    let log = lab.emerge(&["=app-misc/alpha-4.0.0"])?;
    let lines = [
        "not done after 8 s: `alpha` (starting); running versions keep serving",
        "is merged",
    ];
    says(&log, &lines, &["refused", "reloaded", "did not answer"])?;
    ensure!(greeting(lab, "alpha")? == "Hello", "the old version serves");
    // It waits for the candidate, and tries nothing again.
    lab.shell("hotmerge reload --timeout 60 || test $? = 5")?;
    let refused = lab.plugin("alpha")?.refused.unwrap_or_default();
    ensure!(
        refused.contains("12000 ms") || refused.contains("12 s"),
        "{refused}"
    );
    let tried = lab.host("history alpha")?.matches("reloading").count() - before;
    ensure!(
        tried == 2,
        "into the state and out of it once, not {tried} times"
    );
    lab.emerge(&["=app-misc/alpha-1.0.0"])?;
    Ok(())
}

/// Both the directory of the host and its configuration are named in conf.d.
fn the_hosts_own_package_finds_it_elsewhere(lab: &Lab) -> Result<()> {
    lab.shell(
        "mkdir -p /srv/plugins/broken
        echo 'format = 1' > /srv/plugins/broken/plugin.meta
        sed 's|^plugin_dir.*||; 1i plugin_dir = \"/srv/plugins\"' /etc/hotmerge/hotmerge.toml > /etc/elsewhere.toml
        echo 'hotmerge_config=/etc/elsewhere.toml' >> /etc/conf.d/hotmerge",
    )?;
    let log = lab.emerge(&["--usepkgonly", "app-admin/hotmerge"])?;
    ensure!(
        log.contains("would refuse") && log.contains("broken"),
        "the upgrade judges other plugins than the host's:\n{log}"
    );
    let log = lab.unmerge("app-admin/hotmerge")?;
    ensure!(
        log.contains("still runs although its program is removed"),
        "a removed host runs on elsewhere, and nobody says so:\n{log}"
    );
    Ok(())
}
