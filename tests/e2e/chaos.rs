//! Crashes of mixed kinds, several at the same time, while clients call: the host lives, every
//! call is answered with a reply or a definite error, each crash is counted once, and nothing is
//! left behind.
//!
//! `HOTMERGE_CHAOS` sets the number of crashes; without it they take a minute or two.

use std::{
    ops::Range,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use hotmerge_daemon::status::{PluginStatus, Status};
use hotmerge_meta::control::{CallParams, CallReply, Client, ClientError, method};
use hotmerge_tests::{Lab, SOON, TestHost, UNTIRING, Vitals, attacks, call_params, how_often};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// How many crashes without `HOTMERGE_CHAOS`.
const CRASHES: u64 = 10_000;
/// Plugins that crash, each on its own and all at the same time.
const VICTIMS: [&str; 4] = ["one", "two", "three", "four"];
/// After so many of each everything that is made once has been made, and the host's history is
/// full, which keeps the last 4096 transitions of all.
const WARM_UP: u64 = 1_024;
/// The plugin that nothing happens to, called after each other one.
const NEIGHBOUR: &str = "quiet";

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

fn status(client: &mut Client, plugin: &str) -> PluginStatus {
    let status: Status = client
        .request(method::STATUS, &(), SOON)
        .expect("the host says what it runs");
    let mut plugins = status.plugins.into_iter();
    let found = plugins.find(|it| it.name == plugin);
    found.expect("it is there all the while")
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
    /// Calls all plugins in turn from one of them on, as fast as they answer. A call that finds
    /// a worker being replaced waits for it.
    fn ask(&self, mut client: Client, from: usize) {
        let mut plugins = VICTIMS.map(|victim| [victim, NEIGHBOUR]);
        plugins.rotate_left(from);
        while !self.stop.load(Ordering::Relaxed) {
            for plugin in plugins.into_iter().flatten() {
                let counter = match (plugin, call(&mut client, plugin, "echo")) {
                    (NEIGHBOUR, Ok(_)) => &self.of_the_neighbour,
                    (NEIGHBOUR, Err(error)) => panic!("the neighbour was disturbed: {error}"),
                    (_, Ok(_)) => &self.replies,
                    (_, Err(ClientError::Refused(_))) => &self.errors,
                    (_, Err(error)) => panic!("no answer: {error}"),
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Crashes one plugin, and sees each time that its worker was replaced once.
struct Crasher {
    plugin: &'static str,
    /// The kind that it begins with, so that different ones come together.
    first: usize,
    client: Client,
}

impl Crasher {
    fn all(host: &TestHost) -> [Self; VICTIMS.len()] {
        let mut first = 0;
        VICTIMS.map(|plugin| {
            first += KINDS.len() / VICTIMS.len();
            let mut client = host.client();
            // Only who was answered is known to the host, and counted from the beginning.
            status(&mut client, plugin);
            Self {
                plugin,
                first,
                client,
            }
        })
    }

    /// The worker, which has had this many before it.
    fn worker(&mut self, restarts: u64, after: &str) -> OwnedFd {
        let status = status(&mut self.client, self.plugin);
        assert_eq!(status.restarts, restarts, "{} {after}", self.plugin);
        let pid = status.worker.and_then(|worker| Pid::from_raw(worker.pid?));
        let pid = pid.expect("what has just answered lives");
        pidfd_open(pid, PidfdFlags::empty()).expect("nobody else ends it")
    }

    fn crash(&mut self, numbers: Range<u64>) {
        let mut worker = self.worker(numbers.start, "before all");
        for number in numbers {
            let kind = KINDS[(self.first + number as usize) % KINDS.len()];
            if kind == KILLED {
                pidfd_send_signal(&worker, Signal::KILL).expect("nobody else ends it");
            } else if let Err(error) = call(&mut self.client, self.plugin, kind) {
                assert!(matches!(error, ClientError::Refused(_)), "{kind}: {error}");
            }
            ended(&worker, kind);
            // A caller now waits for the next one, or learns that it came too early.
            let deadline = Instant::now() + SOON;
            while let Err(error) = call(&mut self.client, self.plugin, "echo") {
                assert!(matches!(error, ClientError::Refused(_)), "{kind}: {error}");
                assert!(Instant::now() < deadline, "no answer after {kind}: {error}");
            }
            worker = self.worker(number + 1, kind);
        }
    }
}

/// Waits for the end of a process.
fn ended(process: &OwnedFd, kind: &str) {
    let limit = Timespec::try_from(SOON).expect("it is short");
    let mut end = [PollFd::new(process, PollFlags::IN)];
    let ready = poll(&mut end, Some(&limit)).expect("a process can be waited for");
    assert_eq!(ready, 1, "a worker has not ended after {kind}");
}

/// Crashes all victims at the same time, while clients call. Returns what these were answered.
fn crash_under_calls(host: &TestHost, crashers: &mut [Crasher], numbers: &Range<u64>) -> Answers {
    let answers = Answers::default();
    thread::scope(|scope| {
        for from in 0..VICTIMS.len() {
            let (client, answers) = (host.client(), &answers);
            scope.spawn(move || answers.ask(client, from));
        }
        let crashing: Vec<_> = crashers
            .iter_mut()
            .map(|crasher| scope.spawn(|| crasher.crash(numbers.clone())))
            .collect();
        let outcomes: Vec<_> = crashing.into_iter().map(|it| it.join()).collect();
        answers.stop.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            outcome.expect("every crash is counted once");
        }
    });
    answers
}

#[test]
fn crashes_of_all_kinds_never_reach_the_host() {
    let each = how_often("HOTMERGE_CHAOS", CRASHES).div_ceil(VICTIMS.len() as u64);
    let lab = Lab::new();
    for plugin in VICTIMS.into_iter().chain([NEIGHBOUR]) {
        lab.put(&attacks().named(plugin));
    }
    let Some(host) = lab.start_sandboxed(UNTIRING) else {
        return;
    };
    let mut crashers = Crasher::all(&host);
    let cold = Vitals::of(&host);
    crash_under_calls(&host, &mut crashers, &(0..WARM_UP));
    // Memory is what it is by now; everything else was given back with the first clients.
    let before = Vitals {
        private_kib: Vitals::of(&host).private_kib,
        ..cold
    };
    before.regained(&host, "the first crashes");
    let began = Instant::now();
    let answers = crash_under_calls(&host, &mut crashers, &(WARM_UP..WARM_UP + each));
    let took = began.elapsed();
    before.regained(&host, "all crashes");
    let crashes = each * VICTIMS.len() as u64;
    println!(
        "{crashes} crashes in {took:.1?} ({:.1?} each); {answers:?}; before {before:?}, after {:?}",
        took / u32::try_from(crashes).unwrap_or(u32::MAX).max(1),
        Vitals::of(&host)
    );
    assert!(answers.replies.into_inner() > 0, "nobody was answered");
    assert_eq!(host.plugin(NEIGHBOUR).restarts, 0, "the neighbour crashed");
    host.stop();
}
