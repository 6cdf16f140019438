//! Plugins that attack while they are loaded or started: the host lives, others answer, and the
//! refusal names what happened.

use std::time::Duration;

use hotmerge_daemon::{
    lifecycle::{PluginState, Stage},
    status::Status,
};
use hotmerge_meta::Handover;
use hotmerge_tests::{Callers, Lab, Neighbour, TestHost, actor, attacks_at, cause, children};
use rustix::process::Signal;

const BY_FILTER: &str =
    "its worker was killed by SIGSYS: it made a system call that is never allowed, while {}";
const BY_SEGV: &str = "its worker was killed by SIGSEGV, while {}";
const ABORTED: &str = "its worker aborted, while {}";
const TOO_MUCH: &str =
    "its worker used … MiB of memory, and `limits.memory_mib` gives it …, while {}";
const EXITED: &str = "its worker exited with status 0 without being asked to, while {}";

/// Attacks that end in a refusal, whose reason is this; `{}` stands for the step.
const REFUSED: &[(&str, &str)] = &[
    ("exec", BY_FILTER),
    ("execveat", BY_FILTER),
    ("vfork", BY_FILTER),
    ("ptrace", BY_FILTER),
    ("process-vm", BY_FILTER),
    ("process-vm-write", BY_FILTER),
    ("raw", BY_FILTER),
    ("legacy", BY_FILTER),
    ("x32", BY_FILTER),
    ("io-uring", BY_FILTER),
    ("mount", BY_FILTER),
    ("unmount", BY_FILTER),
    ("chroot", BY_FILTER),
    ("unshare", BY_FILTER),
    ("setuid", BY_FILTER),
    ("capset", BY_FILTER),
    ("bpf", BY_FILTER),
    ("memfd", BY_FILTER),
    // The code that would have reported it is gone.
    ("cover", BY_SEGV),
    ("memory", ABORTED),
    ("late-write", TOO_MUCH),
    ("write-over", TOO_MUCH),
    ("abort", ABORTED),
    ("segv", "its worker was killed by SIGSEGV at 0x8, while {}"),
    (
        "illegal",
        "its worker was killed by SIGILL at 0x…, while {}",
    ),
    ("divide", "its worker was killed by SIGFPE at 0x…, while {}"),
    ("stack", "its worker overflowed its stack, while {}"),
    ("panic-twice", ABORTED),
    (
        "raise",
        "its worker was ended after it survived SIGSEGV, while {}",
    ),
    (
        "forge-signal",
        "its worker was ended after it survived SIGSEGV",
    ),
    (
        "forge-garbage",
        "its worker broke the protocol: it sent an unknown report",
    ),
    ("exit", EXITED),
    (
        "exit-raw",
        "its worker exited with status 3 without being asked to, while {}",
    ),
    ("ignore-sys", BY_FILTER),
    ("handle-segv", BY_FILTER),
    ("exit-thread", EXITED),
];

/// What becomes of [`TOO_MUCH`] if the worker finds no memory for a stack before the host looks.
const OVERWRITTEN: [&str; 2] = [ABORTED, "its worker was killed by SIGSEGV at 0x…, while {}"];

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

/// Whether a reason is the expected one. A forged report is written at one step, and may be read at the next.
fn is_expected(name: &str, expected: &str, reason: &str, step: &str) -> bool {
    let is = |expected: &str| reason == expected.replace("{}", step);
    match name {
        "forge-signal" | "forge-garbage" => reason.starts_with(expected),
        "write-over" => is(expected) || OVERWRITTEN.iter().any(|it| is(it)),
        _ => is(expected),
    }
}

/// What is not as expected, once all attacks were tried.
fn unexpected(host: &TestHost, step: &str) -> Vec<String> {
    let refused = REFUSED.iter().filter_map(|(name, expected)| {
        let plugin = host.plugin(name);
        let reason = plugin.refused.map(|attempt| cause(&attempt.reason));
        let reason = reason.unwrap_or_else(|| "it is not refused".to_owned());
        let is_so = is_expected(name, expected, &reason, step) && plugin.restarts == 0;
        (!is_so).then(|| format!("{name} should be: {expected}\n    but: {reason}"))
    });
    let in_vain = IN_VAIN.iter().filter_map(|name| {
        let plugin = host.plugin(name);
        let answer = host.call(name, "echo", b"");
        let works = plugin.state == PluginState::Active && plugin.restarts == 0 && answer.is_ok();
        (!works).then(|| format!("{name} should work, but: {:?}", plugin.refused))
    });
    refused.chain(in_vain).collect()
}

fn attack(lab: &Lab, moment: &str, step: &str) {
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
    let unexpected = unexpected(&host, step);
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    remove();
    neighbour.remember(&host);
    // Once more, since what is made once is not a leak.
    put(&mut refused());
    remove();
    neighbour.goes_on(&host, "all attacks");
    neighbour.unharmed(host);
}

#[test]
fn an_attack_in_a_constructor_fails() {
    attack(&Lab::new(), "load", "its constructors ran");
}

#[test]
fn an_attack_in_start_fails() {
    attack(&Lab::new(), "start", "it started");
}

#[test]
fn an_attack_in_the_self_check_fails() {
    attack(&Lab::new(), "check", "it checked itself");
}

/// What a candidate does, and why it is refused.
const CANDIDATES: [(&str, &str, &str); 8] = [
    (
        "load-exec",
        "load=exec",
        "its worker was killed by SIGSYS: it made a system call that is never allowed, while its \
         constructors ran",
    ),
    (
        "load-hang",
        "load=hang",
        "it did not start within 2000 ms; its worker was ended, while its constructors ran",
    ),
    (
        "load-sleep",
        "load=sleep",
        "it did not start within 2000 ms; its worker was ended, while its constructors ran",
    ),
    (
        "start-fault",
        "start=fault-forever",
        "it did not start within 2000 ms; its worker was ended, while it started",
    ),
    (
        "start-segv",
        "start=segv",
        "its worker was killed by SIGSEGV at 0x8, while it started",
    ),
    (
        "start-exit",
        "start=exit",
        "its worker exited with status 0 without being asked to, while it started",
    ),
    (
        "check-hang",
        "check=hang",
        "it did not start within 2000 ms; its worker was ended, while it checked itself",
    ),
    (
        "check-abort",
        "check=abort",
        "its worker aborted, while it checked itself",
    ),
];

#[test]
fn a_hostile_candidate_leaves_the_live_version_serving() {
    let lab = Lab::new();
    lab.package("good").put(&[&actor("mark=1")]);
    let package = lab.package("hostile");
    let put = |script: &dyn Fn(&'static str) -> &'static str| {
        let variants = CANDIDATES.map(|(name, does, _)| attacks_at(script(does)).named(name));
        package.put(&variants.each_ref());
    };
    put(&|_| "");
    let Some(host) = lab.start_sandboxed("start_ms = 2000\n") else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    let callers = Callers::start(&host, 1, CANDIDATES.map(|(name, ..)| name), "echo");
    put(&|script| script);
    host.reload();
    callers.go_on();
    for (name, _, expected) in CANDIDATES {
        let plugin = host.plugin(name);
        let refused = plugin.refused.expect("it is refused").reason;
        assert_eq!(cause(&refused), expected, "{name}");
        assert_eq!(plugin.state, PluginState::Active, "{name}");
        assert_eq!(plugin.restarts, 0, "{name}");
    }
    callers.unharmed();
    neighbour.unharmed(host);
}

/// They would go on for minutes otherwise.
#[test]
fn candidates_that_nobody_wants_end_at_once() {
    let lab = Lab::new();
    lab.package("good").put(&[&actor("mark=1")]);
    let package = lab.package("hostile");
    let hanging = [
        "load=hang",
        "load=sleep",
        "start=hang",
        "check=sleep",
        "restore=hang",
    ];
    // With one that takes over the state while calls go on, and one for which they wait.
    let live = attacks_at("").named("restore-hang");
    let live = live.with_meta(|meta| meta.handover = Handover::Live);
    let paused = attacks_at("").named("paused");
    package.put(&[&live, &paused]);
    let patient = "start_ms = 600000\nhandover_ms = 300\nteardown_ms = 300\n";
    let Some(host) = lab.start_sandboxed(patient) else {
        return;
    };
    let mut neighbour = Neighbour::of(&host, "actor", "mark");
    let put = |round: usize| {
        let variants = hanging.map(|script| {
            let hanging = attacks_at(&format!("{script} round={round}"));
            hanging.named(&script.replace('=', "-"))
        });
        let paused = attacks_at(&format!("restore=hang round={round}")).named("paused");
        package.put(&variants.iter().chain([&paused]).collect::<Vec<_>>());
        host.signal(Signal::HUP);
        let has_begun = |status: &Status| {
            let candidates = status.plugins.iter().filter(|it| it.name.contains('-'));
            let starting = candidates.filter(|it| it.stage == Some(Stage::Starting));
            let workers = children(&host).len();
            (starting.count() == hanging.len() && workers > hanging.len()).then_some(())
        };
        host.wait_for("that all of them hang", has_begun);
    };
    for round in 0..2 {
        put(2 * round);
        // A newer version takes the place of each.
        put(2 * round + 1);
        package.remove();
        host.reload();
        neighbour.goes_on(&host, "candidates that hang");
        package.put(&[&live, &paused]);
        host.reload();
        if round == 0 {
            neighbour.remember(&host);
        }
    }
    package.remove();
    host.reload();
    neighbour.unharmed(host);
}

/// What a plugin did while it was loaded or started is of no use to it in calls.
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
    neighbour.unharmed_though(host, Duration::from_millis(300));
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
