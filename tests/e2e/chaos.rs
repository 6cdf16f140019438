//! Crashes of mixed kinds while clients call: the host lives, every call is answered with a
//! reply or a definite error, and nothing is left behind.
//!
//! `HOTMERGE_CHAOS` sets the number of crashes (300 by default, which is quick).

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use hotmerge_meta::control::{CallParams, CallReply, Client, ClientError, method};
use hotmerge_tests::{Lab, TestHost, attacks, skipped, worker};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const KINDS: [&str; 9] = [
    "abort",
    "segv",
    "exit",
    "stack",
    "panic",
    "exec",
    "shellcode",
    "panic-twice",
    "SIGKILL",
];

fn call(client: &mut Client, plugin: &str, name: &str) -> Result<CallReply, ClientError> {
    let params = CallParams {
        plugin: plugin.parse().unwrap(),
        method: name.to_owned(),
        input_base64: b"hello".to_vec().into(),
        deadline_ms: Some(30_000),
        trace: None,
    };
    client.request(method::CALL, &params, Duration::from_secs(60))
}

fn worker_of(host: &TestHost, plugin: &str) -> Option<Pid> {
    Pid::from_raw(host.plugin(plugin).worker?.pid?)
}

/// Kills the worker of a plugin, and nobody else: when its number is used, it may be another's.
fn kill_worker(host: &TestHost, plugin: &str) {
    let Some(pid) = worker_of(host, plugin) else {
        return;
    };
    let Ok(worker) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if worker_of(host, plugin) == Some(pid) {
        let _ = pidfd_send_signal(&worker, Signal::KILL);
    }
}

fn descriptors(host: &TestHost) -> usize {
    let entries = fs::read_dir(format!("/proc/{}/fd", host.pid()));
    entries.expect("the host lives").count()
}

fn workers(host: &TestHost) -> usize {
    let path = format!("/proc/{0}/task", host.pid());
    let tasks = fs::read_dir(path).expect("the host lives");
    let children = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    children
        .map(|text| text.split_ascii_whitespace().count())
        .sum()
}

fn resident_kib(host: &TestHost) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", host.pid())).expect("the host lives");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    number.expect("the kernel says it")
}

#[test]
fn crashes_of_all_kinds_never_reach_the_host() {
    let crashes: u64 =
        std::env::var("HOTMERGE_CHAOS").map_or(300, |text| text.parse().expect("a number"));
    let lab = Lab::new();
    lab.package("one").put(&[&attacks()]);
    lab.package("two").put(&[&attacks().named("quiet")]);
    let config = format!(
        "worker = {:?}\nisolation = \"process\"\nsymbols = \"off\"\n\
         restart = {{ most = 1000000000, within_s = 1, pause_ms = 0 }}\n",
        worker()
    );
    let host = lab.start_with(&config);
    if !host.status().host.degraded.is_empty() {
        return skipped("this system gives no whole sandbox");
    }
    let (before, memory) = (descriptors(&host), resident_kib(&host));
    let (replies, errors, quiet) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    thread::scope(|scope| {
        for plugin in ["attacks", "quiet"] {
            let mut client = host.client();
            let (replies, errors, quiet, stop) = (&replies, &errors, &quiet, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match (plugin, call(&mut client, plugin, "echo")) {
                        ("quiet", Ok(_)) => quiet.fetch_add(1, Ordering::Relaxed),
                        ("quiet", Err(error)) => panic!("the neighbour was disturbed: {error}"),
                        (_, Ok(_)) => replies.fetch_add(1, Ordering::Relaxed),
                        (_, Err(ClientError::Refused(_))) => errors.fetch_add(1, Ordering::Relaxed),
                        (_, Err(error)) => panic!("no answer: {error}"),
                    };
                }
            });
        }
        let mut client = host.client();
        for number in 0..crashes {
            let kind = KINDS[number as usize % KINDS.len()];
            if kind == "SIGKILL" {
                kill_worker(&host, "attacks");
            } else if let Err(error) = call(&mut client, "attacks", kind) {
                assert!(matches!(error, ClientError::Refused(_)), "{kind}: {error}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let took = began.elapsed();
    host.wait_for("one worker a plugin is left", |_| {
        (workers(&host) == 2).then_some(())
    });
    let plugin = host.plugin("attacks");
    let restarts = plugin.restarts;
    println!(
        "{crashes} crashes in {took:.1?}: {restarts} restarts, {} replies, {} definite errors, \
         {} replies of the neighbour; host {memory} KiB before, {} after",
        replies.into_inner(),
        errors.into_inner(),
        quiet.into_inner(),
        resident_kib(&host)
    );
    assert!(restarts * 10 >= crashes * 8, "{restarts} restarts");
    assert!(
        descriptors(&host) <= before + 4,
        "descriptors are left behind"
    );
    assert!(
        resident_kib(&host) < memory + 16 * 1024,
        "memory is left behind"
    );
    host.stop();
}
