//! Plugins that attack in a call: the host lives, others answer meanwhile, the failure is named,
//! and nothing is left behind.

use std::{thread, time::Duration};

use hotmerge_meta::{
    OnReplace,
    control::{CallParams, CallReply, method},
};
use hotmerge_tests::{
    Callers, Forbidden, HANGS_MS, Lab, Neighbour, SOON, TestHost, UNTIRING, actor, attacks,
    call_params, cause, keep_one_heap, without,
};

/// What becomes of an attack. Causes are whole: see [`cause`] for what is left out of them, and `{}`
/// stands for the method.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// The system says no, and the plugin lives on.
    Refused(&'static str),
    /// It has no effect that matters, and the plugin lives on.
    Harmless,
    /// The plugin is ended, and answers before unless that takes longer.
    Ended(&'static str),
    /// The caller learns that the plugin is ended, and why.
    Killed(&'static str),
    /// The same, and how far it comes is a matter of time.
    KilledByOneOf(&'static [&'static str]),
    /// The caller learns of a panic, and the plugin is replaced.
    Panics(&'static str),
    /// The caller waits no longer than it may, and the plugin is ended.
    Hangs,
    /// It has no effect on the first process of a namespace, and any other one hangs.
    StopsOutside,
}

use Expected::{Ended, Hangs, Harmless, Killed, KilledByOneOf, Panics, Refused, StopsOutside};

const NOT_PERMITTED: Expected = Refused("Operation not permitted (os error 1)");
const NO_SUCH_CALL: Expected = Refused("Function not implemented (os error 38)");
const NO_MEMORY: Expected = Refused("Cannot allocate memory (os error 12)");
const BY_FILTER: Expected =
    Killed("was killed by SIGSYS: it made a system call that is never allowed, while `{}` ran");
const BY_SEGV: Expected = Killed("was killed by SIGSEGV at 0x… in `{}`");
const ABORTED: Expected = Killed("aborted in `{}`");
const GARBAGE: Expected = Ended("broke the protocol: it sent an unknown report");

const TOO_MUCH: &str = "used … MiB of memory, and `limits.memory_mib` gives it …, while `{}` ran";

/// Its worker may find no memory for a call or a stack before the host sees that it has too much.
const OVERWRITTEN: Expected = KilledByOneOf(&[
    TOO_MUCH,
    "aborted in `{}`",
    "was killed by SIGSEGV at 0x… in `{}`",
]);

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
    ("stop", StopsOutside),
    ("ptrace", BY_FILTER),
    ("process-vm", BY_FILTER),
    ("process-vm-write", BY_FILTER),
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
    ("patch", BY_SEGV),
    ("shellcode", BY_SEGV),
    // The code that would have reported it is gone.
    ("cover", Killed("was killed by SIGSEGV, while `{}` ran")),
    ("memory", ABORTED),
    ("grow-down", NOT_PERMITTED),
    ("late-write", Killed(TOO_MUCH)),
    ("write-over", OVERWRITTEN),
    ("lock", NOT_PERMITTED),
    ("reserve", NO_MEMORY),
    // Ends
    ("abort", ABORTED),
    ("segv", Killed("was killed by SIGSEGV at 0x8 in `{}`")),
    ("illegal", Killed("was killed by SIGILL at 0x… in `{}`")),
    ("divide", Killed("was killed by SIGFPE at 0x… in `{}`")),
    ("stack", Killed("overflowed its stack in `{}`")),
    (
        "thread-stack",
        Killed("was killed by SIGSEGV, while `{}` ran"),
    ),
    (
        "exit",
        Killed("exited with status 0 without being asked to, while `{}` ran"),
    ),
    (
        "exit-raw",
        Killed("exited with status 3 without being asked to, while `{}` ran"),
    ),
    ("exit-thread", Hangs),
    ("pthread-exit", ABORTED),
    ("hang", Hangs),
    ("sleep", Hangs),
    ("hang-apart", Harmless),
    (
        "panic",
        Panics("panicked at hostile/attacks/src/ending.rs:… as asked"),
    ),
    ("panic-twice", ABORTED),
    ("panic-apart", Harmless),
    (
        "ignore-segv",
        Killed("was killed by SIGSEGV, while `{}` ran"),
    ),
    ("handle-segv", BY_FILTER),
    ("fault-forever", Hangs),
    ("hang-in-handler", Hangs),
    ("ignore-sys", BY_FILTER),
    (
        "raise",
        Ended("was ended after it survived SIGSEGV in `{}`"),
    ),
    ("bus", Ended("was ended after it survived SIGBUS in `{}`")),
    (
        "int3",
        Ended("was ended after it survived SIGTRAP at 0x0 in `{}`"),
    ),
    (
        "int3-exit",
        Killed(
            "exited with status 3 without being asked to, while `{}` ran, after it had survived \
             SIGTRAP at 0x0 in `{}`",
        ),
    ),
    // Reports that lie
    ("forge-panic", Ended("a lie in `forged`")),
    ("forge-signal", Ended("was ended after it survived SIGSEGV")),
    (
        "forge-overflow",
        Ended("was ended after it overflowed its stack"),
    ),
    ("forge-text", GARBAGE),
    ("forge-garbage", GARBAGE),
    ("forge-empty", Harmless),
    ("forge-nothing", GARBAGE),
    ("forge-part", GARBAGE),
    ("drip-reports-for-ever", GARBAGE),
    ("forge-huge", Ended("panicked")),
    (
        "forge-for-ever",
        Ended("was ended after it survived SIGSEGV"),
    ),
    ("garbage-for-ever", GARBAGE),
    ("panics-for-ever", Ended("a lie in `forged`")),
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
        Err(error) => Err(cause(&error.to_string())),
    }
}

/// What a plugin with the fixture `attacks` was asked for, and the result.
struct Tried<'a> {
    host: &'a TestHost,
    name: &'a str,
    expected: Expected,
    pid: Option<i32>,
    restarts: u64,
    outcome: Result<String, String>,
}

impl Tried<'_> {
    fn ensure(&self, is_so: bool, seen: &str) -> Result<(), String> {
        let (name, expected, outcome) = (self.name, self.expected, &self.outcome);
        let told = || format!("{name} should be {expected:?}, but: {seen} (the call: {outcome:?})");
        if is_so { Ok(()) } else { Err(told()) }
    }

    /// The plugin was ended once, for this.
    fn ended(&self, expected: &str) -> Result<(), String> {
        let failure = cause(&self.host.replaced("attacks", self.restarts + 1));
        self.host.answers_again("attacks");
        let restarts = self.host.plugin("attacks").restarts;
        self.ensure(failure == expected, &failure)?;
        self.ensure(
            restarts == self.restarts + 1,
            &format!("{restarts} restarts"),
        )
    }

    /// The caller's error.
    fn was_told(&self, told: &str) -> Result<(), String> {
        self.ensure(
            self.outcome.as_ref() == Err(&told.to_owned()),
            "other words",
        )
    }

    fn lives_on(&self) -> Result<(), String> {
        self.ensure(
            self.host.worker("attacks").pid == self.pid,
            "it was not survived",
        )?;
        // Some leave threads that would be in the way of the next one.
        let ended = call(self.host, "exit-raw", Harmless);
        self.ensure(ended.is_err(), "it stays")?;
        self.ended("exited with status 3 without being asked to, while `exit-raw` ran")
    }

    fn is_as_expected(&self) -> Result<(), String> {
        let name = self.name;
        let answered = self.outcome.as_deref().unwrap_or_default();
        let whole = |cause: &str| cause.replace("{}", name);
        match self.expected {
            Refused(words) => {
                self.ensure(answered == words, "other words")?;
                self.lives_on()
            }
            Harmless | StopsOutside => {
                self.ensure(answered.starts_with("did it: "), "other words")?;
                self.lives_on()
            }
            Ended(words) => {
                let told = format!("the plugin {}", whole(words));
                let is_told = self.outcome.as_ref() == Err(&told);
                self.ensure(is_told || answered.starts_with("did it: "), "other words")?;
                self.ended(&whole(words))
            }
            Killed(words) => {
                self.was_told(&format!("the plugin {}", whole(words)))?;
                self.ended(&whole(words))
            }
            KilledByOneOf(causes) => {
                let mut causes = causes.iter().map(|it| whole(it));
                let found = causes.find(|it| self.was_told(&format!("the plugin {it}")).is_ok());
                self.ensure(found.is_some(), "other words")?;
                self.ended(&found.unwrap_or_default())
            }
            Panics(words) => {
                self.was_told(&format!("the plugin {words}"))?;
                self.ended(&format!("{words} in `{name}`"))
            }
            Hangs => {
                self.was_told("the deadline of the call has passed")?;
                self.ended(&whole(
                    "hung: a call continued after its deadline, while `{}` ran",
                ))
            }
        }
    }
}

/// Attacks once, and tells what happens that is not expected.
fn attack(host: &TestHost, name: &str, expected: Expected) -> Result<(), String> {
    let expected = match expected {
        StopsOutside if host.worker("attacks").degraded.is_empty() => Harmless,
        StopsOutside => Hangs,
        other => other,
    };
    let tried = Tried {
        host,
        name,
        expected,
        pid: host.worker("attacks").pid,
        restarts: host.plugin("attacks").restarts,
        outcome: call(host, name, expected),
    };
    tried.is_as_expected()
}

#[test]
fn an_attack_during_calls_stays_in_its_worker() {
    let lab = attacked();
    let Some(host) = lab.start_sandboxed(UNTIRING) else {
        return;
    };
    attack_and_recover(host);
}

/// The operator's own policy looks at every symbol, and minds none.
#[test]
fn permitted_imports_open_no_way_out() {
    let lab = attacked();
    let policy = lab.path("symbols.toml");
    let shown = lab.hotmerge(["policy", "symbols"]).ok().text();
    let permitted = ["never", "fs", "net"].iter().fold(shown, |text, when| {
        text.replace(&format!("when = \"{when}\""), "when = \"always\"")
    });
    std::fs::write(&policy, permitted).expect("the test's own directory");
    let config = format!("{UNTIRING}symbols = \"enforce\"\nsymbol_policy = {policy:?}\n");
    let Some(host) = lab.start_sandboxed(&config) else {
        return;
    };
    attack_and_recover(host);
}

#[test]
fn filters_alone_keep_attacks_in_their_worker() {
    let lab = attacked();
    let config = format!("{}{UNTIRING}", lab.living_in("process"));
    let mut serve = lab.serve(&config);
    keep_one_heap(&mut serve);
    let forbidden = [Forbidden::Namespaces, Forbidden::Landlock];
    let host = without(&forbidden, || lab.start_by(serve));
    attack_and_recover(host);
}

fn attacked() -> Lab {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    lab
}

/// Attacks in every way; each leaves the host as it was.
fn attack_and_recover(host: TestHost) {
    let mut neighbour = Neighbour::of(&host, "actor", "mark");
    // What is made once is not a leak.
    for kind in ["panic", "exec", "memory", "panics-for-ever"] {
        let restarts = host.plugin("attacks").restarts;
        let _ = call(&host, kind, Harmless);
        host.replaced("attacks", restarts + 1);
        host.answers_again("attacks");
    }
    neighbour.remember(&host);
    let attack = |(name, expected): &(&str, Expected)| {
        let outcome = attack(&host, name, *expected);
        if outcome.is_err() {
            // Whatever is left of it would be taken for the next one's.
            let _ = call(&host, "exit-raw", Harmless);
            host.answers_again("attacks");
        }
        neighbour.goes_on(&host, name);
        outcome.err()
    };
    let unexpected: Vec<_> = ATTACKS.iter().filter_map(attack).collect();
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
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
        ("late-write", Killed(TOO_MUCH)),
        ("write-over", OVERWRITTEN),
        ("memory", ABORTED),
        ("reserve", NO_MEMORY),
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
            "exited with status 3 without being asked to, while `exit-raw` ran, after it had survived \
             SIGTRAP at",
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
