//! A host without any privilege gives its plugins the whole sandbox all the same.

use std::fs;

use hotmerge_tests::{Lab, NOBODY, TestHost, UNTIRING, actor, attacks};

/// A host of an ordinary user, whoever runs the tests, with the hostile plugin and a neighbour.
fn start(lab: &Lab, more: &str) -> TestHost {
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    let serve = lab.serve(&format!("isolation = \"process\"\n{UNTIRING}{more}"));
    let host = TestHost::start(lab.as_ordinary_user(serve), lab.runtime_dir());
    let degraded = host.status().host.degraded;
    assert!(degraded.is_empty(), "{degraded:#?}");
    host
}

/// A line of the status that the kernel has of a process.
fn line(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect("the kernel tells").trim().to_owned()
}

#[test]
fn its_workers_have_no_privilege_and_nothing_of_the_host() {
    let lab = Lab::new();
    let host = start(&lab, "");
    let pid = host.plugin("attacks").worker.unwrap().pid.unwrap();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(line(pid, "NoNewPrivs:"), "1");
    assert_eq!(line(pid, "Seccomp:"), "2");
    let host_user = fs::metadata(format!("/proc/{}", host.pid())).unwrap();
    assert_ne!(std::os::unix::fs::MetadataExt::uid(&host_user), 0);
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
fn what_must_fail_fails_and_the_worker_lives_on() {
    let lab = Lab::new();
    let host = start(&lab, "");
    let pid = host.plugin("attacks").worker.unwrap().pid;
    for (attack, answer) in [
        ("open", "not permitted"),
        ("proc", "not permitted"),
        ("list", "not permitted"),
        ("write", "not permitted"),
        ("socket", "not permitted"),
        ("unix", "not permitted"),
        ("connect", "not permitted"),
        ("fork", "not permitted"),
        ("forks", "not permitted"),
        ("kill-parent", "not permitted"),
        ("kill-all", "not permitted"),
        ("kill-group", "not permitted"),
        ("rwx", "not permitted"),
        ("mprotect", "not permitted"),
        ("truncate", "not permitted"),
        ("close", "not permitted"),
        ("new", "not implemented"),
        ("command", "not permitted"),
        ("clone3", "not implemented"),
        ("queue-parent", "not permitted"),
        ("tgkill-parent", "not permitted"),
        ("pidfd", "not permitted"),
        ("overwrite", "not permitted"),
        ("netlink", "not permitted"),
        ("own", "not permitted"),
        ("dup", "not permitted"),
        ("close-range", "not permitted"),
        ("tty", "not permitted"),
        ("seccomp", "not permitted"),
        ("rlimit", "not permitted"),
        ("dumpable", "not permitted"),
        ("outlive", "not permitted"),
    ] {
        let said = host.text("attacks", attack);
        assert!(said.contains(answer), "{attack}: {said}");
    }
    let said = host.text("attacks", "threads");
    let threads: u64 = said.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(threads < 64, "{said}");
    assert_eq!(host.plugin("attacks").worker.unwrap().pid, pid);
    host.stop();
}

#[test]
fn what_kills_a_plugin_kills_nobody_else() {
    let lab = Lab::new();
    let host = start(&lab, "");
    for (attack, name) in [
        ("exec", "SIGSYS"),
        ("ptrace", "SIGSYS"),
        ("raw", "SIGSYS"),
        ("io-uring", "SIGSYS"),
        ("mount", "SIGSYS"),
        ("unshare", "SIGSYS"),
        ("memfd", "SIGSYS"),
        ("execveat", "SIGSYS"),
        ("vfork", "SIGSYS"),
        ("process-vm", "SIGSYS"),
        ("legacy", "SIGSYS"),
        ("x32", "SIGSYS"),
        ("setns", "SIGSYS"),
        ("setuid", "SIGSYS"),
        ("capset", "SIGSYS"),
        ("bpf", "SIGSYS"),
        ("keyctl", "SIGSYS"),
        ("userfaultfd", "SIGSYS"),
        ("shellcode", "SIGSEGV"),
        ("segv", "SIGSEGV"),
        ("stack", "overflowed its stack"),
        ("abort", "aborted"),
        ("memory", "aborted"),
        ("exit", "exited"),
    ] {
        let error = host
            .call("attacks", attack, b"")
            .expect_err(attack)
            .to_string();
        assert!(error.contains(name), "{attack}: {error}");
        assert_eq!(host.text("attacks", "echo"), "", "after {attack}");
        assert_eq!(host.text("actor", "mark"), "1", "after {attack}");
    }
    host.stop();
}

#[test]
fn another_user_is_not_its_to_give() {
    let lab = Lab::new();
    let host = start(&lab, &format!("[plugin.attacks]\nuser = {}\n", NOBODY - 1));
    let reason = host.plugin("attacks").refused.expect("it was refused");
    assert!(
        reason.reason.contains("only a host that is root"),
        "{}",
        reason.reason
    );
    host.stop();
}
