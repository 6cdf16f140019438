//! No orphans, whatever dies first.

use std::{os::fd::OwnedFd, sync::mpsc, thread, time::Duration};

use hotmerge_tests::{
    Lab, SOON, TestHost, UNTIRING, actor, attacks, attacks_at, call, children, is_ready,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Descriptors of all workers of a host.
fn workers(host: &TestHost) -> Vec<OwnedFd> {
    let pids = children(host).into_iter().filter_map(Pid::from_raw);
    let fds = pids.map(|pid| pidfd_open(pid, PidfdFlags::empty()).expect("it lives"));
    fds.collect()
}

fn all_gone(workers: &[OwnedFd]) {
    for worker in workers {
        assert!(is_ready(worker, SOON), "a worker outlives its host");
    }
}

/// Killed in the middle of calls, of threads that spin, of a start that hangs, and of a plugin's
/// attempt to outlive it.
#[test]
fn a_killed_host_leaves_no_worker() {
    let lab = Lab::new();
    let busy = [
        "hang",
        "sleep",
        "busy",
        "threads",
        "outlive",
        "ignore-segv",
        "print-for-ever",
    ];
    let mut variants: Vec<_> = busy.iter().map(|name| attacks().named(name)).collect();
    variants.push(attacks_at("start=outlive").named("restless"));
    lab.package("hostile")
        .put(&variants.iter().collect::<Vec<_>>());
    lab.package("good").put(&[&actor("mark=1")]);
    let Some(mut host) = lab.start_sandboxed(UNTIRING) else {
        return;
    };
    let calls = busy.map(|name| {
        let mut client = host.client();
        thread::spawn(move || call(&mut client, name, name, b""))
    });
    let started = children(&host).len();
    lab.package("late")
        .put(&[&attacks_at("load=hang").named("late")]);
    host.signal(Signal::HUP);
    host.wait_for("one more worker is being started", |_| {
        (children(&host).len() > started).then_some(())
    });
    host.wait_for("the call that hangs has begun", |_| {
        (host.worker("hang").cpu_ms? > 0).then_some(())
    });
    let workers = workers(&host);
    assert!(workers.len() > busy.len(), "{} workers", workers.len());
    host.signal(Signal::KILL);
    host.ended();
    all_gone(&workers);
    for call in calls {
        let _ = call.join().expect("callers do not panic");
    }
}

/// Killed while it starts workers, at another moment each time: what is left of one that was
/// not a worker yet would hold the host's locks, and the next host could not start.
#[test]
fn a_host_killed_mid_start_blocks_no_successor() {
    let lab = Lab::new();
    let put = |mark: u64| {
        for name in ["one", "two", "three", "four"] {
            let version = actor(&format!("mark={mark}")).named(name);
            lab.package(name).put(&[&version]);
        }
    };
    put(0);
    let (_never, silence) = mpsc::channel::<()>();
    for kill in 1..=60 {
        let Some(mut host) = lab.start_sandboxed("watch = false\n") else {
            return;
        };
        put(kill);
        host.signal(Signal::HUP);
        // Nothing is awaited here: any moment will do.
        let _ = silence.recv_timeout(Duration::from_micros(kill % 30 * 1_000));
        host.signal(Signal::KILL);
        host.ended();
    }
    lab.start_sandboxed("").expect("as before").stop();
}

/// Killed over and over: each worker is waited for, and another takes its place.
#[test]
fn a_killed_worker_is_reaped_and_replaced() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    let Some(host) = lab.start_sandboxed(UNTIRING) else {
        return;
    };
    for restarts in 1..=20 {
        let workers = workers(&host);
        assert_eq!(workers.len(), 1, "others are left behind");
        pidfd_send_signal(&workers[0], Signal::KILL).expect("it lives");
        assert!(host.replaced("attacks", restarts).contains("SIGKILL"));
        all_gone(&workers);
    }
    host.stop();
}

#[test]
fn a_stopped_host_leaves_no_worker() {
    let lab = Lab::new();
    lab.package("hostile").put(&[&attacks()]);
    lab.package("good").put(&[&actor("mark=1")]);
    let Some(host) = lab.start_sandboxed(UNTIRING) else {
        return;
    };
    host.text("attacks", "busy");
    let workers = workers(&host);
    host.stop();
    all_gone(&workers);
}
