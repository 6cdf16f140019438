//! Where a part of the cgroup tree is delegated to a host, each worker has a group of its own
//! that lives as long as it does.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_tests::{
    Lab, NOBODY, Process, SOON, TestGroup, TestHost, UNTIRING, attacks, copy_environment, skipped,
};
use rustix::process::Signal;

fn serve(lab: &Lab, group: &str, more: &str) -> Command {
    let workers = lab.living_in("process");
    lab.serve(&format!("{workers}{UNTIRING}{group}{more}"))
}

/// A host of root's, who made the group.
#[track_caller]
fn start(lab: &Lab, group: &str, more: &str) -> TestHost {
    TestHost::start(serve(lab, group, more), lab.runtime_dir())
}

fn named(group: &TestGroup) -> String {
    format!("cgroup = {:?}\n", group.path())
}

fn group() -> Option<TestGroup> {
    TestGroup::new().map_err(|why| skipped(&why)).ok()
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    lab
}

/// Runs a command in a group from its first instruction.
fn inside(group: &TestGroup, user: u32, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    let join = format!(
        "echo $$ > {}/cgroup.procs && exec setpriv --reuid {user} --regid {user} --clear-groups \"$@\"",
        group.path().display()
    );
    shell.args(["-c", &join, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    copy_environment(command, &mut shell);
    shell
}

/// The group of the plugin's worker, once there is one worker in one group.
#[track_caller]
fn of_worker(host: &TestHost, group: &TestGroup) -> String {
    host.wait_for("the worker is in a group of its own", |status| {
        let worker = status.plugins.first()?.worker.as_ref()?;
        let pid = worker.pid?;
        let below = group.below();
        let workers: Vec<_> = below
            .iter()
            .filter(|(name, _)| name.contains("/worker-"))
            .collect();
        match workers[..] {
            [(name, pids)] if *pids == [pid] => Some(name.clone()),
            _ => None,
        }
    })
}

#[test]
fn each_workers_cgroup_ends_with_it() {
    let Some(group) = group() else { return };
    let lab = lab();
    let limits = "[plugin.attacks.limits]\nmemory_mib = 64\nthreads = 32\ncpus = 0.5\n";
    let host = start(&lab, &named(&group), limits);
    let first = of_worker(&host, &group);
    let controllers = fs::read_to_string(group.path().join("cgroup.controllers")).unwrap();
    let shown = host.status().host.limits;
    assert!(shown.contains(group.path().to_str().unwrap()), "{shown}");
    for (controller, file, value) in [
        ("memory", "memory.swap.max", "0"),
        ("pids", "pids.max", "32"),
        ("cpu", "cpu.max", "50000 100000"),
    ] {
        let has = controllers.split_whitespace().any(|it| it == controller);
        assert_eq!(shown.contains(controller), has, "{shown}");
        if has {
            let set = fs::read_to_string(group.path().join(&first).join(file)).unwrap();
            assert_eq!(set.trim(), value, "{file}");
        } else if controller == "cpu" {
            host.log().wait("its limit `cpus` is not enforced");
        }
    }
    if controllers.trim().is_empty() {
        assert!(shown.contains("no controllers"), "{shown}");
    }
    host.call("attacks", "abort", b"").expect_err("it aborts");
    let second = of_worker(&host, &group);
    assert_ne!(first, second);
    host.stop();
    assert_eq!(group.below(), []);
}

/// The kernel schedules nothing in it, and says neither to the worker nor to its host.
#[test]
fn a_frozen_worker_is_reported_and_replaced() {
    let Some(group) = group() else { return };
    let lab = lab();
    let host = start(&lab, &named(&group), "");
    let frozen = of_worker(&host, &group);
    let dir = group.path().join(&frozen);
    let worker = host.plugin("attacks").worker.and_then(|worker| worker.pid);
    fs::write(dir.join("cgroup.freeze"), "1").unwrap();
    host.wait_for("the kernel has frozen it", |_| {
        let events = fs::read_to_string(dir.join("cgroup.events")).unwrap();
        events.contains("frozen 1").then_some(())
    });
    host.leaves_calls_unanswered("attacks");
    let failure = host.replaced("attacks", 1);
    assert!(failure.contains("did not answer"), "{failure}");
    assert_eq!(host.text("attacks", "echo"), "");

    // Nobody is left whom a thaw would wake.
    assert_ne!(of_worker(&host, &group), frozen);
    assert!(!dir.exists(), "its group is still there");
    let worker = worker.expect("it ran");
    assert!(!Path::new(&format!("/proc/{worker}")).exists());
    host.stop();
    assert_eq!(group.below(), []);
}

#[test]
fn a_dead_hosts_leftover_cgroups_are_removed() {
    let Some(group) = group() else { return };
    let (dead, neighbour, next) = (lab(), lab(), lab());
    let neighbour = start(&neighbour, &named(&group), "");
    let its = of_worker(&neighbour, &group);
    let mut host = start(&dead, &named(&group), "");
    let left = host.wait_for("it has a group", |_| {
        let own = format!("hotmerge-{}-0/worker-", host.pid());
        let below = group.below().into_iter();
        below
            .map(|(name, _)| name)
            .find(|name| name.starts_with(&own))
    });
    host.signal(Signal::KILL);
    host.ended();
    // Something that the death of its host did not end.
    let mut orphan = Process::spawn(Command::new("sleep").arg("3600").stdin(Stdio::null()));
    let procs = group.path().join(&left).join("cgroup.procs");
    fs::write(procs, orphan.pid().to_string()).unwrap();
    let host = start(&next, &named(&group), "");
    let ended = orphan.wait(SOON).expect("it is killed");
    assert!(!ended.success());
    host.stop();
    let host = start(&next, &named(&group), "");
    let names: Vec<_> = group.below().into_iter().map(|(name, _)| name).collect();
    assert!(!names.contains(&left), "{names:?}");
    assert!(names.contains(&its), "{names:?}");
    host.stop();
    neighbour.stop();
}

#[test]
fn a_host_uses_its_delegated_cgroup() {
    let Some(group) = group() else { return };
    group.delegate(NOBODY);
    let lab = lab();
    // The worker program is found beside the host's.
    let serve = lab.serve(&format!("isolation = \"process\"\n{UNTIRING}"));
    let ordinary = lab.as_ordinary_user(serve);
    let host = TestHost::start(inside(&group, NOBODY, &ordinary), lab.runtime_dir());
    assert!(host.status().host.degraded.is_empty());
    of_worker(&host, &group);
    let below = group.below();
    let itself = i32::try_from(host.pid()).unwrap();
    assert!(
        below.contains(&("host".to_owned(), vec![itself])),
        "{below:?}"
    );
    host.stop();
    // Its group is the service manager's to remove.
    assert_eq!(group.below(), [("host".to_owned(), vec![])]);
}

#[test]
fn an_undelegated_cgroup_is_left_alone() {
    let Some(group) = group() else { return };
    let lab = lab();
    let serve = serve(&lab, "", "");
    let host = TestHost::start(inside(&group, 0, &serve), lab.runtime_dir());
    assert_eq!(group.below(), []);
    let limits = host.status().host.limits;
    assert!(limits.contains("no cgroup is delegated"), "{limits}");
    host.stop();
}

#[test]
fn an_invalid_configured_cgroup_is_reported() {
    let lab = lab();
    let named = format!("cgroup = {:?}\n", lab.path("nowhere"));
    let host = start(&lab, &named, "");
    let degraded = host.status().host.degraded;
    assert!(degraded[0].contains("nowhere"), "{degraded:?}");
    assert_eq!(host.text("attacks", "echo"), "");
    host.stop();
    let host = start(&lab, &named, "degraded = \"refuse\"\n");
    assert_eq!(host.plugin("attacks").state, PluginState::Error);
    host.stop();
}
