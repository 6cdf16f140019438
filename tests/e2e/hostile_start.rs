//! Plugins that attack while they are loaded or started: the host lives, others answer, and the
//! refusal names what happened.

use std::time::Duration;

use hotmerge_daemon::lifecycle::PluginState;
use hotmerge_tests::{Lab, Neighbour, TestHost, actor, attacks_at};

/// Attacks that end in a refusal, which has these words, or one of several.
const REFUSED: &[(&str, &str)] = &[
    ("exec", "SIGSYS"),
    ("execveat", "SIGSYS"),
    ("vfork", "SIGSYS"),
    ("ptrace", "SIGSYS"),
    ("process-vm", "SIGSYS"),
    ("raw", "SIGSYS"),
    ("legacy", "SIGSYS"),
    ("x32", "SIGSYS"),
    ("io-uring", "SIGSYS"),
    ("mount", "SIGSYS"),
    ("unmount", "SIGSYS"),
    ("chroot", "SIGSYS"),
    ("unshare", "SIGSYS"),
    ("setuid", "SIGSYS"),
    ("capset", "SIGSYS"),
    ("bpf", "SIGSYS"),
    ("memfd", "SIGSYS"),
    ("cover", "SIGSEGV"),
    ("memory", "aborted"),
    ("late-write", "`limits.memory_mib` gives it 256"),
    (
        "write-over",
        "`limits.memory_mib` gives it 256|aborted|SIGSEGV",
    ),
    ("abort", "aborted"),
    ("segv", "SIGSEGV at 0x8"),
    ("illegal", "SIGILL"),
    ("divide", "SIGFPE"),
    ("stack", "overflowed its stack"),
    ("panic-twice", "aborted"),
    ("raise", "SIGSEGV"),
    ("forge-signal", "SIGSEGV"),
    ("forge-garbage", "broke the protocol"),
    ("exit", "exited with status 0"),
    ("exit-raw", "exited with status 3"),
    ("ignore-sys", "SIGSYS"),
    ("handle-segv", "SIGSYS"),
    ("exit-thread", "exited with status 0"),
];

/// Attacks that come to nothing: the plugin starts, and works.
const IN_VAIN: &[&str] = &[
    "command",
    "fork",
    "forks",
    "clone3",
    "kill-parent",
    "kill-all",
    "kill-group",
    "queue-parent",
    "tgkill-parent",
    "pidfd",
    "stop",
    "open",
    "proc",
    "list",
    "host-memory",
    "write",
    "overwrite",
    "socket",
    "unix",
    "netlink",
    "connect",
    "truncate",
    "dup",
    "own",
    "new",
    "rlimit",
    "rlimit-high",
    "dumpable",
    "outlive",
    "priority",
    "affinity",
    "grow-down",
    "rwx",
    "keep-rwx",
    "mprotect",
    "own-filter",
    "own-filter-all",
    "close",
    "close-range",
    "lock",
    "log-garbage",
    "log-huge",
    "print-escape",
    "forge-empty",
];

/// What is not as expected, once all attacks were tried.
fn unexpected(host: &TestHost) -> Vec<String> {
    let refused = REFUSED.iter().filter_map(|(name, words)| {
        let refused = host.plugin(name).refused.map(|attempt| attempt.reason);
        let reason = refused.unwrap_or_else(|| "it is not refused".to_owned());
        let is_named = words.split('|').any(|words| reason.contains(words));
        (!is_named).then(|| format!("{name} should be {words}, but: {reason}"))
    });
    let in_vain = IN_VAIN.iter().filter_map(|name| {
        let plugin = host.plugin(name);
        let answer = host.call(name, "echo", b"");
        let works = plugin.state == PluginState::Active && answer.is_ok();
        (!works).then(|| format!("{name} should work, but: {:?}", plugin.refused))
    });
    refused.chain(in_vain).collect()
}

fn attack(lab: &Lab, moment: &str) {
    lab.package("good").put(&[&actor("mark=1")]);
    let Some(host) = lab.start_sandboxed("") else {
        return;
    };
    let mut neighbour = Neighbour::of(&host, "actor", "mark");
    let put = |names: &mut dyn Iterator<Item = &str>| {
        let variants: Vec<_> = names
            .map(|name| attacks_at(&format!("{moment}={name}")).named(name))
            .collect();
        lab.package("hostile")
            .put(&variants.iter().collect::<Vec<_>>());
        host.reload();
    };
    let remove = || {
        lab.package("hostile").remove();
        host.reload();
    };
    let refused = || REFUSED.iter().map(|(name, _)| *name);
    put(&mut refused().chain(IN_VAIN.iter().copied()));
    let unexpected = unexpected(&host);
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    remove();
    neighbour.remember(&host);
    // Once more, since what is made once is no leak.
    put(&mut refused());
    remove();
    neighbour.goes_on(&host, "all attacks");
    neighbour.unharmed(host);
}

#[test]
fn an_attack_in_a_constructor_fails() {
    attack(&Lab::new(), "load");
}

#[test]
fn an_attack_in_start_fails() {
    attack(&Lab::new(), "start");
}

#[test]
fn a_hostile_candidate_leaves_the_live_version_serving() {
    let lab = Lab::new();
    let package = lab.package("hostile");
    package.put(&[&attacks_at("")]);
    let Some(host) = lab.start_sandboxed("start_ms = 2000\n") else {
        return;
    };
    let neighbour = Neighbour::of(&host, "attacks", "echo");
    for (script, words) in [
        ("load=exec", "SIGSYS"),
        ("load=hang", "has not started within"),
        ("load=sleep", "has not started within"),
        ("start=fault-forever", "has not started within"),
        ("start=segv", "SIGSEGV"),
        ("start=exit", "exited with status 0"),
        ("check=hang", "has not started within"),
        ("check=abort", "aborted"),
    ] {
        package.put(&[&attacks_at(script)]);
        host.reload();
        let plugin = host.plugin("attacks");
        let refused = plugin.refused.expect("it is refused").reason;
        assert!(refused.contains(words), "{script}: {refused}");
        assert_eq!(plugin.state, PluginState::Active, "{script}");
        assert_eq!(host.plugin("attacks").restarts, 0, "{script}");
        neighbour.goes_on(&host, script);
    }
    neighbour.unharmed(host);
}

/// What a plugin did while it was loaded or started is no use to it in calls.
#[test]
fn nothing_prepared_during_the_start_helps_later() {
    let lab = Lab::new();
    let prepared = ["own-filter", "keep-rwx", "mprotect", "list"];
    let ways = prepared.iter().flat_map(|name| {
        ["load", "start", "check"].map(|moment| (format!("{moment}-{name}"), moment, *name))
    });
    let ways: Vec<_> = ways.collect();
    let variants: Vec<_> = ways
        .iter()
        .map(|(plugin, moment, name)| attacks_at(&format!("{moment}={name}")).named(plugin))
        .collect();
    lab.package("hostile")
        .put(&variants.iter().collect::<Vec<_>>());
    lab.package("good").put(&[&actor("mark=1")]);
    let Some(host) = lab.start_sandboxed("") else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    for (plugin, ..) in &ways {
        for attack in ["list", "open", "rwx", "use-rwx", "seccomp"] {
            let said = host.text(plugin, attack);
            assert!(!said.contains("did it"), "{plugin}, {attack}: {said}");
        }
        assert!(filters(&host, plugin) >= 3, "{plugin}");
    }
    neighbour.unharmed(host);
}

#[test]
fn a_file_over_its_memory_limit_is_refused() {
    let huge = attacks_at("").with_bytes(|bytes| {
        // The last header of what is loaded; its size in memory is the sixth word of eight bytes.
        let table = usize::from_le_bytes(bytes[32..40].try_into().expect("eight"));
        let count = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
        let mut headers = (0..count).rev().map(|number| table + 56 * number);
        let last = headers.find(|at| bytes[*at..at + 4] == 1_u32.to_le_bytes());
        let at = last.expect("something is loaded") + 40;
        bytes[at..at + 8].copy_from_slice(&(3_u64 << 30).to_le_bytes());
    });
    for (limit, mib) in [
        ("", 256),
        ("[plugin.attacks.limits]\nmemory_mib = 32\n", 32),
    ] {
        let lab = Lab::new();
        lab.package("hostile").put(&[&huge]);
        lab.package("good").put(&[&actor("mark=1")]);
        let Some(host) = lab.start_sandboxed(limit) else {
            return;
        };
        let neighbour = Neighbour::of(&host, "actor", "mark");
        let refused = host.plugin("attacks").refused.expect("it is refused");
        let words = format!("`limits.memory_mib` gives it {mib}");
        assert!(refused.reason.contains(&words), "{}", refused.reason);
        assert_eq!(lab.verify_objects("attacks"), Some(refused.reason));
        neighbour.unharmed(host);
    }
}

/// How many filters the kernel knows of a worker.
fn filters(host: &TestHost, plugin: &str) -> usize {
    let pid = host.worker(plugin).pid.expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let count = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp_filters:"));
    count
        .expect("the kernel tells")
        .trim()
        .parse()
        .expect("it is a number")
}

#[test]
fn a_plugin_cannot_answer_as_its_worker() {
    let lab = Lab::new();
    lab.package("hostile")
        .put(&[&attacks_at("check=answer-itself")]);
    lab.package("good").put(&[&actor("mark=1")]);
    let Some(host) = lab.start_sandboxed("call_ms = 2000\nteardown_ms = 300\n") else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    assert_eq!(host.worker("attacks").degraded, [""; 0]);
    let shown = lab.hotmerge(["status"]).ok().text();
    assert!(!shown.contains("forged"), "{shown}");
    assert!(filters(&host, "attacks") >= 3);
    let error = host
        .call("attacks", "echo", b"")
        .expect_err("nobody answers");
    assert!(error.to_string().contains("deadline"), "{error}");
    // The teardown, a second for the end of the process, and a second for the host itself.
    neighbour.unharmed_within(host, Duration::from_millis(300 + 1000 + 1000));
}

/// Its answer and the end of its pipe are seen at about the same time.
#[test]
fn a_worker_without_descriptors_never_counts_as_started() {
    let lab = Lab::new();
    let names: Vec<_> = (0..100).map(|number| format!("close-{number}")).collect();
    let close = attacks_at("start=close");
    let variants: Vec<_> = names.iter().map(|name| close.clone().named(name)).collect();
    lab.package("hostile")
        .put(&variants.iter().collect::<Vec<_>>());
    lab.package("good").put(&[&actor("mark=1")]);
    // Without sockets to close it may not close anything.
    let granted = |name: &String| format!("[plugin.{name}]\nallow = [\"net\"]\n");
    let granted: String = names.iter().map(granted).collect();
    let Some(host) = lab.start_sandboxed(&granted) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    for name in &names {
        let refused = host.plugin(name).refused.map(|attempt| attempt.reason);
        let reason = refused.unwrap_or_else(|| "it is not refused".to_owned());
        assert!(
            reason.contains("closed its descriptors"),
            "{name}: {reason}"
        );
    }
    neighbour.unharmed(host);
}
