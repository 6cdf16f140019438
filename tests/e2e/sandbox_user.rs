//! Whosever the host is, its plugins have no privilege; and an ordinary user's host has none to
//! give.

use std::{fs, os::unix::fs::MetadataExt as _};

use hotmerge_tests::{Lab, NOBODY, TestHost, attacks, hosts_are_ordinary};

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
