//! Hostile clients of all kinds, and honest clients who are served meanwhile.

use std::{
    collections::VecDeque,
    env, hint,
    io::{Read as _, Write as _},
    iter,
    net::Shutdown,
    os::unix::{fs::chown, net::UnixStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use hotmerge_daemon::status::Status;
use hotmerge_meta::control::method;
use hotmerge_tests::{Footprint, Lab, Neighbour, SOON, TestHost, actor, call, cpu, keep_one_heap};
use rustix::{
    process::{Uid, geteuid, nice},
    thread::set_thread_uid,
    time::{ClockId, clock_gettime},
};

/// Whose connections are let in, and whose are not.
const READER: u32 = 60_001;
const STRANGER: u32 = 60_004;

/// How many connections each attacker keeps open.
const KEPT: usize = 60;
const CALLS: usize = 1_000;

/// How often attacks and control alternate.
const ROUNDS: usize = 5;

/// A call passes four threads, and each may wait for a tick of the scheduler before it runs, however fair the
/// host is.
const TICKS: Duration = Duration::from_millis(16);

/// How many connections the attackers make together.
fn attacks() -> usize {
    env::var("HOTMERGE_HOSTILE").map_or(1_000, |text| text.parse().expect("a number"))
}

/// What one connection does that no honest one would, by number.
fn misbehave(mut stream: UnixStream, kind: usize) -> Option<UnixStream> {
    let status = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}\n";
    // A connection that was closed for others, or has filled a buffer, is replaced by the next.
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

/// Makes so many connections as some user, if this is root. Returns how long it computed.
fn attack(socket: &Path, user: u32, from: usize, count: usize) -> Duration {
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
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it began at zero")
}

/// Attacks by three threads at once, with so many connections together. Returns how long they computed.
fn wave(socket: &Path, all: usize) -> Duration {
    thread::scope(|scope| {
        // The second one has the first one's role.
        let users = [READER, READER, STRANGER].into_iter().enumerate();
        let attackers: Vec<_> = users
            .map(|(from, user)| scope.spawn(move || attack(socket, user, from, all / 3 + 1)))
            .collect();
        let computed = attackers.into_iter().map(|it| it.join().expect("it ends"));
        computed.sum()
    })
}

/// The part of a processor that a thread of the control computes, as the attackers do or as the host does.
#[derive(Clone, Copy, Debug)]
struct Load {
    part: f64,
    nice: i32,
}

impl Load {
    /// Spread over as many threads as compute at once.
    fn spread(processors: f64, threads: usize, nice: i32) -> impl Iterator<Item = Self> {
        let part = (processors / threads as f64).min(1.0);
        iter::repeat_n(Self { part, nice }, threads)
    }

    fn compute(self, is_over: &AtomicBool) {
        const PERIOD: Duration = Duration::from_millis(2);

        nice(self.nice).expect("anybody may be nice");
        while !is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            while began.elapsed() < PERIOD.mul_f64(self.part) {
                hint::spin_loop();
            }
            thread::park_timeout(PERIOD.saturating_sub(began.elapsed()));
        }
    }
}

/// How long each call took during so many attacks, and what the attackers and the host computed for them.
fn calls_during(host: &TestHost, socket: &Path, attacks: usize) -> (Vec<Duration>, Vec<Load>) {
    let is_over = AtomicBool::new(false);
    let (began, before) = (Instant::now(), cpu(host.pid()));
    thread::scope(|scope| {
        let honest = scope.spawn(|| calls(host, |_| !is_over.load(Ordering::Relaxed)));
        let attackers = wave(socket, attacks).as_secs_f64();
        let computed = (cpu(host.pid()) - before).as_secs_f64();
        let wall = began.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        // The accepting thread and the attackers' connections.
        let loads =
            Load::spread(attackers / wall, 3, 19).chain(Load::spread(computed / wall, 2, 0));
        (
            honest.join().expect("no honest call fails"),
            loads.collect(),
        )
    })
}

/// How long each call took while as much was computed as during an attack, by processes that leave the host alone.
fn control(host: &TestHost, loads: &[Load]) -> Vec<Duration> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for load in loads {
            scope.spawn(|| load.compute(&is_over));
        }
        let took = calls(host, |done| done < CALLS);
        is_over.store(true, Ordering::Relaxed);
        took
    })
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

/// Where two processors serve attackers, attacked and honest clients, a thread that waits for a processor waits for the
/// scheduler. So the calls are compared with those beside an equal load that leaves the host alone.
#[test]
fn hostile_connections_slow_calls_no_more_than_load() {
    const MIB: u64 = 1 << 10;

    let lab = Lab::new();
    lab.put(&actor("mark=1"));
    // The log in memory would fill up to its bound only during the attack.
    let config = "log = { bytes = 65536 }\n[[door.allow]]\nuser = 60001\nrole = \"read\"\n";
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
    // Once more below, since what is made once is not a leak.
    wave(&socket, attacks());
    // The neighbour's caller and the one that asks for the status.
    host.wait_for("the end of hostile connections", |status| {
        (status.host.door.as_ref()?.open <= 3).then_some(())
    });
    neighbour.remember(&host);
    let all = attacks();
    let (mut beside, mut attacked) = (Vec::new(), Vec::new());
    let mut is_fair = false;
    // In turns, because whatever else this machine does comes and goes.
    for _ in 0..ROUNDS {
        let (mut during, loads) = calls_during(&host, &socket, all / ROUNDS);
        let mut control = control(&host, &loads);
        let [most, is] = [&mut control, &mut during].map(|took| percentile(took, 990));
        is_fair |= is <= 2 * most + TICKS;
        println!("p99: {most:?} beside {loads:?}, {is:?} during attacks");
        beside.extend(control);
        attacked.extend(during);
    }
    for of_1000 in [500, 990, 999] {
        let all_times = [&mut quiet, &mut beside, &mut attacked];
        let [quiet, beside, attacked] = all_times.map(|took| percentile(took, of_1000));
        println!(
            "p{}: {quiet:?} quiet, {beside:?} beside an equal load, {attacked:?} during {all} hostile connections",
            of_1000 as f64 / 10.0,
        );
    }
    assert!(
        is_fair,
        "calls wait for more than the processors in every round"
    );
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
