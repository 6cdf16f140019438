//! Whichever user runs the host, its plugins have no privilege; and an ordinary user's host has none to
//! give.

use std::{fs, os::unix::fs::MetadataExt as _};

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_tests::{Lab, NOBODY, TestHost, actor, attacks, hosts_are_ordinary, skipped};

/// A line of the status that the kernel has of a process.
fn line(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect("the kernel tells").trim().to_owned()
}

#[test]
fn workers_have_no_privileges_or_host_resources() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    let Some(host) = lab.start_sandboxed("") else {
        return;
    };
    let owner = fs::metadata(format!("/proc/{}", host.pid())).unwrap();
    assert_eq!(owner.uid() != 0, hosts_are_ordinary());
    let pid = host.worker("attacks").pid.unwrap();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(line(pid, "NoNewPrivs:"), "1");
    assert_eq!(line(pid, "Seccomp:"), "2");
    for namespace in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}"));
        let (worker, host) = (of(&pid.to_string()), of(&host.pid().to_string()));
        // Only a tester with privileges may look at a process that is not dumpable.
        if let (Ok(worker), Ok(host)) = (worker, host) {
            assert_ne!(worker, host, "{namespace}");
        } else {
            assert_ne!(rustix::process::geteuid().as_raw(), 0, "{namespace}");
        }
    }
    host.stop();
}

/// What a worker says of itself proves nothing.
#[test]
fn a_worker_that_has_not_locked_starts_nothing() {
    for (omits, reason) in [
        ("no-lock", "should have 3 of its own"),
        (
            "no-filters",
            "its worker has installed no system call filter",
        ),
    ] {
        let lab = Lab::new();
        lab.package("good").put(&[&actor("mark=1")]);
        let worker = lab.unconfined_worker(omits);
        let host = lab.start_with(&format!("worker = {worker:?}\nisolation = \"process\"\n"));
        let degraded = host.status().host.degraded;
        if !degraded.is_empty() {
            return skipped(&format!("there is no whole sandbox: {degraded:?}"));
        }
        let plugin = host.plugin("actor");
        let refused = plugin.refused.expect("it is refused").reason;
        assert!(refused.contains(reason), "{omits}: {refused}");
        assert_eq!(plugin.state, PluginState::Error, "{omits}");
        host.stop();
    }
}

/// Soft and hard limit on a resource, as the kernel has them of a process.
fn limits(pid: i32, resource: &str) -> [String; 2] {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(resource));
    let mut words = line.expect("the kernel tells").split_whitespace();
    [(); 2].map(|()| words.next().expect("it has both").to_owned())
}

#[test]
fn configured_limits_reach_the_worker() {
    /// What a worker has open before the plugin opens anything.
    const ITS_OWN: u64 = 9;

    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    let own = "[plugin.attacks.limits]\nfiles = 7\nthreads = 11\ncpu_s = 1234\n";
    let Some(host) = lab.start_sandboxed(own) else {
        return;
    };
    let pid = host.worker("attacks").pid.unwrap();
    for (resource, limit) in [
        ("Max open files", 7 + ITS_OWN),
        ("Max processes", 11),
        ("Max cpu time", 1234),
        ("Max core file size", 0),
        ("Max file size", 0),
        ("Max locked memory", 0),
    ] {
        let limit = [limit, limit].map(|it| it.to_string());
        assert_eq!(limits(pid, resource), limit, "{resource}");
        let of_host = limits(host.pid().cast_signed(), resource);
        if of_host == limit {
            skipped(&format!("the host has the same limit: {resource}"));
        }
    }
    host.stop();
}

#[test]
fn an_ordinary_host_cannot_set_another_user() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    let user = format!("[plugin.attacks]\nuser = {}\n", NOBODY - 1);
    let serve = lab.serve(&format!("isolation = \"process\"\n{user}"));
    let host = TestHost::start(lab.as_ordinary_user(serve), lab.runtime_dir());
    let refused = host.plugin("attacks").refused.expect("it was refused");
    let reason = refused.reason;
    assert!(reason.contains("only a host that is root"), "{reason}");
    host.stop();
}
