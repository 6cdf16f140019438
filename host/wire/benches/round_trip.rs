//! One round trip of a small call between two processes' worth of threads: this crate, a bare
//! spin-then-futex ping-pong and a Unix socket, interleaved in one run.
//!
//! Two threads with the memory between them cost what two processes cost: the wake-up and
//! the cache lines are the same. Prints the median and the 99th percentile of each arm.

use std::{
    hint::spin_loop,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use hotmerge_abi::CallContext;
use hotmerge_wire::{Caller, Geometry, Reply, Request, Server};
use rustix::thread::futex::{self, Flags};

const ROUNDS: usize = 20;
const CALLS: usize = 5_000;

fn main() {
    let mut arms = [
        ("worker call", Vec::new()),
        ("futex ping-pong", Vec::new()),
        ("unix socket", Vec::new()),
    ];
    for _ in 0..ROUNDS {
        wire(&mut arms[0].1);
        ping_pong(&mut arms[1].1);
        socket(&mut arms[2].1);
    }
    for (name, mut times) in arms {
        times.sort_unstable();
        let at = |part: usize| times[times.len() * part / 100].as_nanos();
        println!("{name:16} p50 {:>7} ns   p99 {:>7} ns", at(50), at(99));
    }
}

fn measure(times: &mut Vec<Duration>, mut call: impl FnMut()) {
    for _ in 0..200 {
        call();
    }
    for _ in 0..CALLS {
        let began = Instant::now();
        call();
        times.push(began.elapsed());
    }
}

fn wire(times: &mut Vec<Duration>) {
    let geometry = Geometry::default();
    let (caller, file) = Caller::create(geometry).expect("memory");
    let server = Server::open(file, geometry).expect("memory");
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                let taken = server.next();
                let mut writer = taken.writer();
                writer.write(taken.request().1);
                let op = taken.op();
                taken.finish(0, &writer);
                if op == 1 {
                    return;
                }
            }
        });
        let context = CallContext::default();
        let mut request = Request {
            op: 0,
            context: &context,
            method: "echo",
            bytes: b"0123456789abcdef",
            reply_limit: 4096,
            give_up_ns: 0,
            cancel: None,
        };
        let mut reply = Reply::default();
        measure(times, || {
            reply.bytes.clear();
            caller.call(&request, &mut reply).expect("answer");
        });
        request.op = 1;
        caller.call(&request, &mut reply).expect("answer");
    });
}

fn wait_while(word: &AtomicU32, value: u32) {
    let began = Instant::now();
    while word.load(Ordering::Acquire) == value {
        if began.elapsed() > Duration::from_micros(20) {
            let _ = futex::wait(word, Flags::empty(), value, None);
        }
        spin_loop();
    }
}

fn ping_pong(times: &mut Vec<Duration>) {
    let word = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                wait_while(&word, 0);
                let stop = word.load(Ordering::Acquire) == 2;
                word.store(0, Ordering::Release);
                let _ = futex::wake(&word, Flags::empty(), 1);
                if stop {
                    return;
                }
            }
        });
        let ask = |value| {
            word.store(value, Ordering::Release);
            let _ = futex::wake(&word, Flags::empty(), 1);
            wait_while(&word, value);
        };
        measure(times, || ask(1));
        ask(2);
    });
}

fn socket(times: &mut Vec<Duration>) {
    let (mut ours, mut theirs) = UnixStream::pair().expect("socket");
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut bytes = [0; 16];
            while theirs.read_exact(&mut bytes).is_ok() {
                theirs.write_all(&bytes).expect("write");
            }
        });
        let mut bytes = [0; 16];
        measure(times, || {
            ours.write_all(&bytes).expect("write");
            ours.read_exact(&mut bytes).expect("read");
        });
        drop(ours);
    });
}
