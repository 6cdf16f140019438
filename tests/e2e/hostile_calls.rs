//! Plugins that attack in a call: the host lives, others answer meanwhile, the failure is named,
//! and nothing is left behind.

use std::{thread, time::Duration};

use hotmerge_meta::{
    OnReplace,
    control::{CallParams, CallReply, method},
};
use hotmerge_tests::{
    Callers, HANGS_MS, Lab, Neighbour, SOON, TestHost, UNTIRING, actor, attacks, call_params,
};

/// What becomes of an attack.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// The system says no, and the plugin lives on.
    Refused(&'static str),
    /// It has no effect that matters, and the plugin lives on.
    Harmless,
    /// The plugin answers, and is ended then: the reason has these words.
    Ended(&'static str),
    /// The caller learns that the plugin is ended, and why.
    Killed(&'static str),
    /// The same, and why is one of these.
    KilledByOneOf(&'static [&'static str]),
    /// The caller waits no longer than it may, and the plugin is ended.
    Hangs,
}

use Expected::{Ended, Hangs, Harmless, Killed, KilledByOneOf, Refused};

const NOT_PERMITTED: Expected = Refused("Operation not permitted");
const NO_SUCH_CALL: Expected = Refused("Function not implemented");
const BY_FILTER: Expected = Killed("SIGSYS: it made a system call that is never allowed");

const TOO_MUCH: Expected = Killed("MiB of memory, and `limits.memory_mib` gives it 256");

/// Its worker may find no memory for a call or a stack before the host sees that it has too much.
const OVERWRITTEN: Expected =
    KilledByOneOf(&["`limits.memory_mib` gives it", "aborted", "SIGSEGV"]);

/// Every attack, and what becomes of it in a call.
const ATTACKS: &[(&str, Expected)] = &[
    // Other programs and processes
    ("exec", BY_FILTER),
    ("execveat", BY_FILTER),
    ("command", NOT_PERMITTED),
    ("fork", NOT_PERMITTED),
    ("vfork", BY_FILTER),
    ("forks", NOT_PERMITTED),
    ("clone3", NO_SUCH_CALL),
    ("threads", Harmless),
    ("busy", Harmless),
    ("kill-parent", NOT_PERMITTED),
    ("kill-all", NOT_PERMITTED),
    ("kill-group", NOT_PERMITTED),
    ("queue-parent", NOT_PERMITTED),
    ("tgkill-parent", NOT_PERMITTED),
    ("pidfd", NOT_PERMITTED),
    ("stop", Harmless),
    ("ptrace", BY_FILTER),
    ("process-vm", BY_FILTER),
    // Files and sockets
    ("open", NOT_PERMITTED),
    ("proc", NOT_PERMITTED),
    ("list", NOT_PERMITTED),
    ("host-memory", NOT_PERMITTED),
    ("write", NOT_PERMITTED),
    ("overwrite", NOT_PERMITTED),
    ("socket", NOT_PERMITTED),
    ("unix", NOT_PERMITTED),
    ("netlink", NOT_PERMITTED),
    ("connect", NOT_PERMITTED),
    ("send", NOT_PERMITTED),
    ("own", NOT_PERMITTED),
    ("truncate", NOT_PERMITTED),
    ("dup", NOT_PERMITTED),
    ("close", NOT_PERMITTED),
    ("close-range", NOT_PERMITTED),
    ("tty", NOT_PERMITTED),
    // The kernel by other doors
    ("raw", BY_FILTER),
    ("legacy", BY_FILTER),
    ("x32", BY_FILTER),
    ("new", NO_SUCH_CALL),
    ("io-uring", BY_FILTER),
    // Privileges
    ("mount", BY_FILTER),
    ("unmount", BY_FILTER),
    ("chroot", BY_FILTER),
    ("unshare", BY_FILTER),
    ("setns", BY_FILTER),
    ("setuid", BY_FILTER),
    ("capset", BY_FILTER),
    ("bpf", BY_FILTER),
    ("keyctl", BY_FILTER),
    ("perf", BY_FILTER),
    ("userfaultfd", BY_FILTER),
    ("personality", BY_FILTER),
    ("reboot", BY_FILTER),
    ("memfd", BY_FILTER),
    ("seccomp", NOT_PERMITTED),
    ("own-filter", NOT_PERMITTED),
    ("own-filter-all", NOT_PERMITTED),
    ("allow-open", NOT_PERMITTED),
    ("rlimit", NOT_PERMITTED),
    ("rlimit-high", NOT_PERMITTED),
    ("dumpable", NOT_PERMITTED),
    ("outlive", NOT_PERMITTED),
    ("priority", NOT_PERMITTED),
    ("affinity", NOT_PERMITTED),
    // Memory
    ("rwx", NOT_PERMITTED),
    ("keep-rwx", NOT_PERMITTED),
    ("mprotect", NOT_PERMITTED),
    ("remap", Harmless),
    ("patch", Killed("SIGSEGV")),
    ("shellcode", Killed("SIGSEGV")),
    ("cover", Killed("SIGSEGV")),
    ("memory", Killed("aborted in `memory`")),
    ("grow-down", NOT_PERMITTED),
    ("late-write", TOO_MUCH),
    ("write-over", OVERWRITTEN),
    ("lock", NOT_PERMITTED),
    ("reserve", Refused("Cannot allocate memory")),
    // Ends
    ("abort", Killed("aborted in `abort`")),
    ("segv", Killed("SIGSEGV at 0x8 in `segv`")),
    ("illegal", Killed("SIGILL")),
    ("divide", Killed("SIGFPE")),
    ("stack", Killed("overflowed its stack in `stack`")),
    ("thread-stack", Killed("SIGSEGV")),
    ("exit", Killed("exited with status 0")),
    ("exit-raw", Killed("exited with status 3")),
    ("exit-thread", Hangs),
    ("pthread-exit", Killed("aborted in `pthread-exit`")),
    ("hang", Hangs),
    ("sleep", Hangs),
    ("hang-apart", Harmless),
    ("panic", Killed("panicked")),
    ("panic-twice", Killed("aborted in `panic-twice`")),
    ("panic-apart", Harmless),
    ("ignore-segv", Killed("SIGSEGV")),
    ("handle-segv", BY_FILTER),
    ("fault-forever", Hangs),
    ("hang-in-handler", Hangs),
    ("ignore-sys", BY_FILTER),
    ("raise", Ended("was ended after it survived SIGSEGV")),
    ("bus", Ended("was ended after it survived SIGBUS")),
    ("int3", Ended("was ended after it survived SIGTRAP")),
    (
        "int3-exit",
        Killed("exited with status 3 without being asked to, after it had survived SIGTRAP"),
    ),
    // Reports that lie
    ("forge-panic", Ended("a lie in `forged`")),
    ("forge-signal", Ended("SIGSEGV")),
    ("forge-overflow", Ended("overflowed its stack")),
    ("forge-text", Ended("broke the protocol")),
    ("forge-garbage", Ended("broke the protocol")),
    ("forge-empty", Harmless),
    ("forge-nothing", Ended("broke the protocol")),
    ("forge-part", Ended("broke the protocol")),
    ("drip-reports-for-ever", Ended("broke the protocol")),
    ("forge-huge", Ended("")),
    ("forge-for-ever", Ended("SIGSEGV")),
    ("garbage-for-ever", Ended("broke the protocol")),
    // As a lie about a panic, or as too many of them.
    ("panics-for-ever", Ended("")),
];

/// Calls a method; one that hangs is given up soon.
fn call(host: &TestHost, name: &str, expected: Expected) -> Result<String, String> {
    let params = CallParams {
        deadline_ms: matches!(expected, Hangs).then_some(HANGS_MS),
        ..call_params("attacks", name, b"")
    };
    let reply: Result<CallReply, _> = host.client().request(method::CALL, &params, SOON);
    match reply {
        Ok(reply) => Ok(String::from_utf8_lossy(&reply.output_base64.0).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Attacks once, and tells what happens that is not expected.
fn attack(host: &TestHost, name: &str, expected: Expected) -> Result<(), String> {
    let pid = host.worker("attacks").pid;
    let restarts = host.plugin("attacks").restarts;
    let outcome = call(host, name, expected);
    let said = match &outcome {
        Ok(said) | Err(said) => said,
    };
    let ensure = |is_so: bool, seen: &str| {
        let told = || format!("{name} should be {expected:?}, but: {seen} (said: {said})");
        if is_so { Ok(()) } else { Err(told()) }
    };
    let ended = |words: &str| {
        let failure = host.replaced("attacks", restarts + 1);
        ensure(failure.contains(words), &failure)
    };
    let lives_on = || {
        ensure(host.worker("attacks").pid == pid, "it was not survived")?;
        // Some leave threads that would be in the way of the next one.
        ensure(call(host, "exit-raw", Harmless).is_err(), "it stays")?;
        ended("exited with status 3")
    };
    match expected {
        Refused(words) => {
            ensure(outcome.is_ok() && said.contains(words), "other words")?;
            lives_on()?;
        }
        Harmless => {
            ensure(outcome.is_ok() && said.contains("did it"), "other words")?;
            lives_on()?;
        }
        Ended(words) => ended(words)?,
        Killed(words) => {
            ensure(outcome.is_err() && said.contains(words), "other words")?;
            ended(words)?;
        }
        KilledByOneOf(causes) => {
            let cause = causes.iter().find(|words| said.contains(*words));
            ensure(outcome.is_err() && cause.is_some(), "other words")?;
            ended(cause.unwrap_or(&""))?;
        }
        Hangs => {
            ensure(outcome.is_err() && said.contains("deadline"), "other words")?;
            ended("hung: a call continued after its deadline")?;
        }
    }
    host.answers_again("attacks");
    Ok(())
}

fn attack_in_every_way(host: &TestHost, after_each: impl Fn(&str)) {
    let unexpected: Vec<_> = ATTACKS
        .iter()
        .filter_map(|(name, expected)| {
            let outcome = attack(host, name, *expected);
            after_each(name);
            outcome.err()
        })
        .collect();
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

#[test]
fn an_attack_during_calls_stays_in_its_worker() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    let Some(host) = lab.start_sandboxed(UNTIRING) else {
        return;
    };
    let mut neighbour = Neighbour::of(&host, "actor", "mark");
    // Once more, so that what is made once is there before it counts.
    attack_in_every_way(&host, |_| ());
    neighbour.remember(&host);
    attack_in_every_way(&host, |name| {
        neighbour.goes_on(&host, name);
    });
    neighbour.unharmed(host);
}

#[test]
fn a_small_memory_limit_stops_every_attack() {
    /// The limit, what is added for the worker, and addresses for code and stacks.
    const MOST_MIB: u64 = 32 + 16 + 1024;

    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    let limit = "[plugin.attacks.limits]\nmemory_mib = 32\n";
    let Some(host) = lab.start_sandboxed(&format!("{UNTIRING}{limit}")) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    for (name, expected) in [
        ("grow-down", NOT_PERMITTED),
        ("late-write", Killed("`limits.memory_mib` gives it 32")),
        ("write-over", OVERWRITTEN),
        ("memory", Killed("aborted in `memory`")),
        ("reserve", Refused("Cannot allocate memory")),
    ] {
        let outcome = attack(&host, name, expected);
        assert_eq!(outcome, Ok(()), "{name}");
    }
    // Whatever it does, and however late the host looks, it has no more addresses to write to.
    let said = host.text("attacks", "addresses");
    let mib: u64 = said.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(mib <= MOST_MIB, "{said}");
    neighbour.unharmed(host);
}

/// A trap that the worker survives is reported, and the next call ends the worker before the host
/// does.
#[test]
fn a_survived_signal_explains_no_later_death() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    let Some(host) = lab.start_sandboxed(UNTIRING) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    let die_after_a_trap = |method: &str| {
        let restarts = host.plugin("attacks").restarts;
        let mut client = host.client();
        hotmerge_tests::call(&mut client, "attacks", "int3", b"").expect("it goes on");
        // Dies now, unless the machine is so slow that the host has ended it before.
        let _ = hotmerge_tests::call(&mut client, "attacks", method, b"");
        let failure = host.replaced("attacks", restarts + 1);
        host.answers_again("attacks");
        failure
    };
    for (method, expected) in [
        (
            "exit-raw",
            "exited with status 3 without being asked to, after it had survived SIGTRAP at",
        ),
        ("segv", "was killed by SIGSEGV at 0x8 in `segv`"),
        ("abort", "aborted in `abort`"),
    ] {
        let told = (0..20).map(|_| die_after_a_trap(method)).find(|failure| {
            let is_ended = failure.starts_with("was ended after it survived SIGTRAP");
            assert!(
                is_ended || failure.starts_with(expected),
                "{method}: {failure}"
            );
            !is_ended
        });
        let told = told.unwrap_or_else(|| panic!("{method}: it is always ended before"));
        host.log().wait(&format!("it {told}"));
    }
    neighbour.unharmed(host);
}

#[test]
fn a_plugin_cannot_exceed_its_thread_limit() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    let Some(host) = lab.start_sandboxed("") else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    let said = host.text("attacks", "threads");
    let threads: u64 = said.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(threads < 64, "{said}");
    neighbour.unharmed(host);
}

#[test]
fn worker_descriptors_can_carry_nothing_but_bytes() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    let granted = "[plugin.attacks]\nallow = [\"net\"]\n";
    let Some(host) = lab.start_sandboxed(&format!("{UNTIRING}{granted}")) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    for attack in ["sockets", "pass-socket"] {
        let said = host.text("attacks", attack);
        assert!(!said.contains("did it"), "{attack}: {said}");
    }
    neighbour.unharmed(host);
}

/// As many as a worker can have under way towards others.
const HELD: usize = 8;

/// Has a plugin call another for centuries, and waits for none of it.
fn hold(host: &TestHost) {
    let params = CallParams {
        deadline_ms: Some(u64::MAX / 2_000_000),
        ..call_params("user", "ask", b"base sleep")
    };
    let ask = || {
        let patience = Duration::from_millis(HANGS_MS);
        let reply: Result<CallReply, _> = host.client().request(method::CALL, &params, patience);
        reply.expect_err("it sleeps");
    };
    thread::scope(|scope| {
        for _ in 0..HELD {
            scope.spawn(ask);
        }
    });
}

#[test]
fn no_plugin_holds_the_slots_of_another() {
    let lab = Lab::new();
    let user = |mark: &str| {
        let user = actor(&format!("mark={mark}")).named("user");
        user.requiring("base", "*", OnReplace::Rebind)
    };
    let package = lab.package("hostile");
    package.put(&[&user("1")]);
    lab.package("good")
        .put(&[&attacks().named("base"), &actor("mark=1")]);
    let limits = "call_ms = 10000\ndrain_ms = 100\nteardown_ms = 500\n";
    let Some(host) = lab.start_sandboxed(&format!("{UNTIRING}{limits}")) else {
        return;
    };
    let neighbour = Neighbour::of(&host, "actor", "mark");
    let callers = Callers::start(&host, 1, ["base"], "echo");
    hold(&host);
    for version in ["2", "3"] {
        package.put(&[&user(version)]);
        host.reload();
        host.answers_again("user");
        hold(&host);
        callers.go_on();
    }
    // The calls of one that is gone are no reason to keep waiting.
    callers.unharmed();
    assert_eq!(host.worker("base").pid.map(|_| ()), Some(()));
    package.remove();
    host.reload();
    // What went on after its time was ended with its worker.
    host.replaced("base", 1);
    host.answers_again("base");
    neighbour.goes_on(&host, "calls for centuries");
    neighbour.unharmed(host);
}
