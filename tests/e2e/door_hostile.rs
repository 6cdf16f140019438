//! Hostile clients of all kinds, and others who are served all the while.

use std::{
    collections::VecDeque,
    env,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::{fs::chown, net::UnixStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use hotmerge_daemon::status::Status;
use hotmerge_meta::control::method;
use hotmerge_tests::{Footprint, Lab, Neighbour, SOON, TestHost, actor, call, keep_one_heap};
use rustix::{
    process::{Uid, geteuid, nice},
    thread::set_thread_uid,
};

/// Whose connections are let in, and whose are not.
const READER: u32 = 60_001;
const STRANGER: u32 = 60_004;

/// How many connections each attacker keeps open.
const KEPT: usize = 60;
const CALLS: usize = 2_000;

/// How many connections the attackers make together.
fn attacks() -> usize {
    env::var("HOTMERGE_HOSTILE").map_or(1_000, |text| text.parse().expect("a number"))
}

/// What one connection does that no honest one would, by number.
fn misbehave(mut stream: UnixStream, kind: usize) -> Option<UnixStream> {
    let status = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}\n";
    // Whoever is closed for others, or has filled a buffer, goes on with the next.
    stream.set_nonblocking(true).expect("a socket");
    let mut send = |bytes: &[u8]| stream.write(bytes).unwrap_or(0);
    match kind {
        0 => return None,
        1 => {}
        2 => drop(send(b"{\"jsonrpc\":\"2.0\",\"id\":1,")),
        3 => drop(send(b"\0\xff\xfe not JSON at all\n\n\n")),
        4 => {
            let long = vec![b'x'; 1 << 20];
            while send(&long) > 0 {}
        }
        5 => {
            let many = status.repeat(200);
            while send(&many) == many.len() {}
        }
        6 => {
            send(status);
            let _ = stream.shutdown(Shutdown::Write);
        }
        7 => {
            let mut deep = vec![b'['; 100_000];
            deep.push(b'\n');
            send(&deep);
        }
        8 => drop(send(
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stop\",\"params\":{\"x\":[1]}}\n",
        )),
        _ => {
            send(status);
            let _ = stream.read(&mut [0]);
            return None;
        }
    }
    Some(stream)
}

/// Makes so many connections as some user, if this is root.
fn attack(socket: &Path, user: u32, from: usize, count: usize) {
    // What they do to the host counts, not what processor time they take from this test.
    nice(19).expect("anybody may be nice");
    if geteuid().is_root() {
        set_thread_uid(Uid::from_raw(user)).expect("root may");
    }
    let mut kept = VecDeque::new();
    for kind in from..from + count {
        let Ok(stream) = UnixStream::connect(socket) else {
            continue;
        };
        kept.extend(misbehave(stream, kind % 10));
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
}

/// Attacks as three users at once, with so many connections together.
fn wave(socket: &Path, all: usize) {
    thread::scope(|scope| {
        // The second one has the first one's role.
        for (from, user) in [READER, READER, STRANGER].into_iter().enumerate() {
            scope.spawn(move || attack(socket, user, from, all / 3 + 1));
        }
    });
}

/// How long each call took. Every one must succeed.
fn calls(host: &TestHost, mut go_on: impl FnMut(usize) -> bool) -> Vec<Duration> {
    let mut client = host.client();
    let mut took = Vec::new();
    while go_on(took.len()) {
        let began = Instant::now();
        let reply = call(&mut client, "actor", "mark", b"").expect("an honest call succeeds");
        took.push(began.elapsed());
        assert_eq!(reply.output_base64.0, b"1");
    }
    took
}

fn percentile(took: &mut [Duration], of_1000: usize) -> Duration {
    took.sort_unstable();
    took[(took.len() * of_1000 / 1_000).min(took.len() - 1)]
}

/// How the times compare is shown, and left to the reader: `--nocapture`.
#[test]
fn hostile_connections_fail_no_honest_call() {
    const MIB: u64 = 1 << 10;

    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    let config = "[[door.allow]]\nuser = 60001\nrole = \"read\"\n";
    let mut serve = lab.serve(config);
    keep_one_heap(&mut serve);
    let host = lab.start_by(serve);
    if geteuid().is_root() {
        chown(lab.path(""), Some(0), None).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(lab.path(""), open).unwrap();
    }
    let mut quiet = calls(&host, |done| done < CALLS);
    let mut neighbour = Neighbour::of(&host, "actor", "mark");
    let before = Footprint::of(host.pid());
    let socket: PathBuf = lab.runtime_dir().control_socket();
    // Once more below, since what is made once is no leak.
    wave(&socket, attacks() / 2);
    // The neighbour's caller and whoever asks for the status.
    host.wait_for("the end of hostile connections", |status| {
        (status.host.door.as_ref()?.open <= 3).then_some(())
    });
    neighbour.remember(&host);
    let is_over = AtomicBool::new(false);
    let all = attacks();
    let mut attacked = thread::scope(|scope| {
        let honest = scope.spawn(|| {
            calls(&host, |done| {
                done < CALLS || !is_over.load(Ordering::Relaxed)
            })
        });
        wave(&socket, all);
        is_over.store(true, Ordering::Relaxed);
        honest.join().expect("no honest call fails")
    });
    for of_1000 in [500, 990, 999] {
        let times = [&mut quiet, &mut attacked].map(|took| percentile(took, of_1000));
        let ratio = times[1].as_secs_f64() / times[0].as_secs_f64();
        println!(
            "p{}: {:?} quiet, {:?} during {all} hostile connections, ratio {ratio:.2}",
            of_1000 as f64 / 10.0,
            times[0],
            times[1]
        );
    }
    let status: Status = host.client().request(method::STATUS, &(), SOON).unwrap();
    let door = status.host.door.expect("it counts");
    println!("{door:?}, {} calls meanwhile", attacked.len());
    assert!(door.connections >= all as u64, "{door:?}");
    // 64 MiB of requests and replies, and the stacks of those who were served.
    host.wait_for("what they took to be given back", |_| {
        (Footprint::of(host.pid()).rss_kib <= before.rss_kib + 96 * MIB).then_some(())
    });
    neighbour.unharmed(host);
}
