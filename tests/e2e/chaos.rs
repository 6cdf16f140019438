//! Crashes of mixed kinds while clients call: the host lives, every call is answered with a
//! reply or a definite error, each crash is counted once, and nothing is left behind.
//!
//! `HOTMERGE_CHAOS` sets the number of crashes; without it they take about a minute.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use hotmerge_meta::control::{CallParams, CallReply, Client, ClientError, method};
use hotmerge_tests::{Lab, SOON, TestHost, UNTIRING, Vitals, attacks, call_params, how_often};

/// How many crashes without `HOTMERGE_CHAOS`.
const CRASHES: u64 = 1_000;
/// After so many everything that is made once has been made.
const WARM_UP: u64 = 100;

/// From outside, not by a call.
const KILLED: &str = "SIGKILL";

/// Attacks that end their worker, each after its own fashion.
const KINDS: [&str; 17] = [
    "abort",
    "segv",
    "exit",
    "stack",
    "panic",
    "exec",
    "shellcode",
    "panic-twice",
    KILLED,
    "illegal",
    "divide",
    "exit-raw",
    "ignore-sys",
    "cover",
    "pthread-exit",
    "forge-garbage",
    "forge-panic",
];

fn call(client: &mut Client, plugin: &str, name: &str) -> Result<CallReply, ClientError> {
    let params = CallParams {
        deadline_ms: Some(30_000),
        ..call_params(plugin, name, b"hello")
    };
    client.request(method::CALL, &params, SOON)
}

/// What clients were answered.
#[derive(Debug, Default)]
struct Answers {
    replies: AtomicU64,
    errors: AtomicU64,
    of_the_neighbour: AtomicU64,
    stop: AtomicBool,
}

impl Answers {
    fn ask(&self, mut client: Client, plugin: &str) {
        while !self.stop.load(Ordering::Relaxed) {
            let counter = match (plugin, call(&mut client, plugin, "echo")) {
                ("quiet", Ok(_)) => &self.of_the_neighbour,
                ("quiet", Err(error)) => panic!("the neighbour was disturbed: {error}"),
                (_, Ok(_)) => &self.replies,
                (_, Err(ClientError::Refused(_))) => &self.errors,
                (_, Err(error)) => panic!("no answer: {error}"),
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Crashes the worker so often, and sees each time that it was replaced once.
fn crash(host: &TestHost, numbers: std::ops::Range<u64>) {
    let mut client = host.client();
    for number in numbers {
        let kind = KINDS[number as usize % KINDS.len()];
        if kind == KILLED {
            host.kill_worker("attacks");
        } else if let Err(error) = call(&mut client, "attacks", kind) {
            assert!(matches!(error, ClientError::Refused(_)), "{kind}: {error}");
        }
        host.replaced("attacks", number + 1);
        let restarts = host.plugin("attacks").restarts;
        assert_eq!(restarts, number + 1, "after {kind}");
    }
}

#[test]
fn crashes_of_all_kinds_never_reach_the_host() {
    let crashes = how_often("HOTMERGE_CHAOS", CRASHES);
    let lab = Lab::new();
    lab.package("one").put(&[&attacks()]);
    lab.package("two").put(&[&attacks().named("quiet")]);
    let Some(host) = lab.start_sandboxed(UNTIRING) else {
        return;
    };
    crash(&host, 0..WARM_UP);
    let (before, answers, began) = (Vitals::of(&host), Answers::default(), Instant::now());
    thread::scope(|scope| {
        for plugin in ["attacks", "quiet"] {
            let (client, answers) = (host.client(), &answers);
            scope.spawn(move || answers.ask(client, plugin));
        }
        let crashing = scope.spawn(|| crash(&host, WARM_UP..WARM_UP + crashes));
        let outcome = crashing.join();
        answers.stop.store(true, Ordering::Relaxed);
        outcome.expect("every crash is counted once");
    });
    let took = began.elapsed();
    before.regained(&host, "all crashes");
    println!(
        "{crashes} crashes in {took:.1?} ({:.1?} each); {answers:?}; before {before:?}, after {:?}",
        took / u32::try_from(crashes).unwrap_or(u32::MAX).max(1),
        Vitals::of(&host)
    );
    assert!(answers.replies.into_inner() > 0, "nobody was answered");
    host.stop();
}
