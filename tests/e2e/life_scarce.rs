//! A host that gets no threads and no processes from the system for a while.

use std::{os::unix::process::CommandExt as _, process::Command};

use hotmerge_daemon::status::{PluginStatus, Status};
use hotmerge_meta::control::{Client, method};
use hotmerge_tests::{Lab, NOBODY, SOON, TestHost, actor, call, run};
use rustix::process::{
    Pid, PidfdFlags, Resource, Signal, geteuid, getrlimit, pidfd_open, pidfd_send_signal,
};

/// What there can be too little of. What the host has already it keeps.
#[derive(Clone, Copy)]
enum Scarce {
    Threads,
    Descriptors,
}

/// Lets the host have so many of something, or as many as the tester.
fn allow(host: &TestHost, scarce: Scarce, most: Option<u64>) {
    let (resource, name) = match scarce {
        Scarce::Threads => (Resource::Nproc, "nproc"),
        Scarce::Descriptors => (Resource::Nofile, "nofile"),
    };
    let most = most.or(getrlimit(resource).current);
    let most = most.map_or("unlimited".to_owned(), |most| most.to_string());
    let mut limit = Command::new("prlimit");
    limit.args([format!("--pid={}", host.pid()), format!("--{name}={most}:")]);
    // Not even root may limit others everywhere; who owns the host may.
    if geteuid().is_root() {
        limit.uid(NOBODY).gid(NOBODY);
    }
    run(&mut limit, SOON).ok();
}

fn status(client: &mut Client) -> PluginStatus {
    let status: Status = client.request(method::STATUS, &(), SOON).unwrap();
    status.plugins.first().expect("it runs").clone()
}

/// Starts a host that can be limited, unlike root's, and a connection that has its thread already.
fn start(lab: &Lab, config: &str) -> (TestHost, Client) {
    let serve = lab.as_ordinary_user(lab.serve(config));
    let host = TestHost::start(serve, lab.runtime_dir());
    let mut client = host.client();
    assert_eq!(status(&mut client).generation, 1);
    (host, client)
}

/// The status in which something waits: in the moment in which the system is asked again nothing
/// does.
fn waiting(client: &mut Client) -> PluginStatus {
    std::iter::repeat_with(|| status(client))
        .take(1000)
        .find(|status| !status.waiting.is_empty())
        .expect("it waits")
}

#[test]
fn work_is_queued_and_reported_without_free_threads() {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    let (host, mut client) = start(&lab, "");
    allow(&host, Scarce::Threads, Some(1));
    lab.put(&actor("mark=2"));
    host.log()
        .wait("no thread was available to start candidates");
    let waits = waiting(&mut client);
    assert_eq!(
        (waits.generation, waits.waiting.len()),
        (1, 1),
        "{waits:#?}"
    );
    let reply = call(&mut client, "actor", "mark", b"").unwrap();
    assert_eq!(reply.output_base64.0, b"1");
    allow(&host, Scarce::Threads, None);
    let now = host.wait_for("the new version runs alone", |status| {
        let plugin = status.plugins.first()?;
        (plugin.generation == 2 && plugin.ending.is_empty()).then(|| plugin.clone())
    });
    assert_eq!(now.waiting, [""; 0]);
    assert_eq!(host.text("actor", "mark"), "2");
    host.stop();
}

/// Kills a worker while there is too little of something; returns why there is no other one.
fn replaced_late(scarce: Scarce) -> String {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    // A lack of system resources is not a second crash.
    let once = "restart = { most = 1, within_s = 1000, pause_ms = 0 }\n";
    let (host, mut client) = start(&lab, &format!("isolation = \"process\"\n{once}"));
    let worker = host.worker("actor").pid.and_then(Pid::from_raw);
    let worker = pidfd_open(worker.expect("it runs"), PidfdFlags::empty()).expect("it lives");
    allow(&host, scarce, Some(1));
    host.signal(Signal::HUP);
    pidfd_send_signal(&worker, Signal::KILL).expect("it lives");
    host.log().wait("no replacement could start yet");
    if matches!(scarce, Scarce::Descriptors) {
        // A scan of what cannot be opened takes nothing out of service.
        host.log().wait("plugins` cannot be opened");
    }
    let mut waits = waiting(&mut client);
    assert_eq!(waits.waiting.len(), 1, "{waits:#?}");
    let refused = call(&mut client, "actor", "mark", b"").unwrap_err();
    assert!(refused.to_string().contains("SIGKILL"), "{refused}");
    allow(&host, scarce, None);
    host.answers_again("actor");
    let now = host.plugin("actor");
    assert_eq!(
        (now.restarts, now.waiting, now.generation),
        (1, Vec::new(), 1)
    );
    host.stop();
    waits.waiting.remove(0)
}

#[test]
fn a_worker_is_replaced_once_processes_are_available() {
    let why = replaced_late(Scarce::Threads);
    assert!(why.contains("Resource temporarily unavailable"), "{why}");
    let why = replaced_late(Scarce::Descriptors);
    assert!(why.contains("Too many open files"), "{why}");
}

/// A limit under which the host can open so many files more.
fn room_for(host: &TestHost, more: usize) -> u64 {
    let open = std::fs::read_dir(format!("/proc/{}/fd", host.pid())).expect("it runs");
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let open: std::collections::BTreeSet<u64> = numbers.collect();
    let mut free = (0..).filter(|number| !open.contains(number));
    free.nth(more).expect("numbers do not end")
}

#[test]
fn a_version_without_room_starts_later() {
    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    // Only this change is scanned, once.
    let config = "isolation = \"process\"\nwatch = false\nrescan_s = 0\n";
    let (host, mut client) = start(&lab, config);
    // Enough to scan and to read, not enough for a worker.
    allow(&host, Scarce::Descriptors, Some(room_for(&host, 8)));
    lab.put(&actor("mark=2"));
    host.signal(Signal::HUP);
    host.log().wait("Too many open files");
    let waits = waiting(&mut client);
    assert_eq!(waits.generation, 1, "{waits:#?}");
    let refused = waits.refused.expect("it says so").reason;
    assert!(refused.contains("LimitNOFILE="), "{refused}");
    allow(&host, Scarce::Descriptors, None);
    host.wait_for("the new version runs by itself", |status| {
        (status.plugins.first()?.generation == 2).then_some(())
    });
    assert_eq!(host.plugin("actor").waiting, [""; 0]);
    host.stop();
}
