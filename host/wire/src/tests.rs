//! Both sides in one process.

mod ends;
mod hostile;

use std::{sync::atomic::Ordering, thread};

use hotmerge_abi::{CallContext, STATUS_OK, STATUS_REPLY_TOO_LARGE, Status};
use proptest::prelude::*;

use crate::{
    Breach, Caller, Cancel, Ended, Geometry, NoAnswer, Reply, Request, Server, Taken, after_ns,
    memory::Memory,
    now_ns,
    pool::Pool,
    slot::{Head, INLINE_REPLY, INLINE_REQUEST, Slot, following, state},
};

const SMALL: Geometry = Geometry {
    cores: 2,
    slots: 3,
    small_bytes: 4096,
    areas: 1,
    area_bytes: 1 << 20,
};
const ECHO: u32 = 7;
const STOP: u32 = 8;

fn request<'a>(context: &'a CallContext, bytes: &'a [u8]) -> Request<'a> {
    Request {
        op: ECHO,
        context,
        method: "echo",
        bytes,
        reply_limit: 1 << 30,
        give_up_ns: 0,
        cancel: None,
        on_behalf_of: None,
    }
}

fn serve(server: &Server) {
    loop {
        let taken = server.next().unwrap();
        let mut writer = taken.writer();
        let stop = taken.op() == STOP;
        // SAFETY: the caller in these tests is trusted.
        let (method, bytes) = unsafe { taken.request() };
        writer.media_type(method);
        let mut status = STATUS_OK;
        for part in bytes.chunks(1000) {
            status = status.max(writer.write(part));
        }
        taken.finish(status, &writer);
        if stop {
            return;
        }
    }
}

/// Both sides of one memory.
fn pair() -> (Caller, Server) {
    let (caller, file) = Caller::create(SMALL).unwrap();
    let server = Server::open(file, SMALL).unwrap();
    (caller, server)
}

/// Makes a call that only cancelling ends.
fn call_until_cancelled(caller: &Caller, cancel: &Cancel) -> Result<Status, NoAnswer> {
    let context = CallContext::default();
    let request = Request {
        cancel: Some(cancel),
        ..request(&context, b"")
    };
    caller.call(&request, &mut Reply::default())
}

/// Calls that the server has taken and whose callers have given up.
fn abandoned<'a>(caller: &Caller, server: &'a Server, calls: u32) -> Vec<Taken<'a>> {
    let cancel = Cancel::default();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..calls)
            .map(|_| scope.spawn(|| call_until_cancelled(caller, &cancel)))
            .collect();
        let taken = (0..calls).map(|_| server.next().unwrap()).collect();
        caller.cancel(&cancel);
        for caller in callers {
            assert_eq!(caller.join().unwrap(), Err(NoAnswer::Cancelled));
        }
        taken
    })
}

/// Answers a call with nothing.
fn answer(taken: Taken<'_>) {
    let writer = taken.writer();
    taken.finish(STATUS_OK, &writer);
}

/// Runs `body` against a server that echoes on `threads` threads.
fn with_echo(threads: usize, body: impl FnOnce(&Caller)) {
    let (caller, server) = pair();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| serve(&server));
        }
        body(&caller);
        for _ in 0..threads {
            let context = CallContext::default();
            let stop = Request {
                op: STOP,
                ..request(&context, b"")
            };
            caller.call(&stop, &mut Reply::default()).unwrap();
        }
    });
}

#[test]
fn a_reply_has_the_requested_media_type() {
    with_echo(1, |caller| {
        let mut reply = Reply::default();
        let context = CallContext::default();
        let status = caller.call(&request(&context, b"hello"), &mut reply);
        assert_eq!(status, Ok(STATUS_OK));
        assert_eq!(reply.bytes, b"hello");
        assert_eq!(reply.media_type, b"echo");
    });
}

#[test]
fn the_context_arrives_unchanged() {
    let context = CallContext {
        size: 56,
        trace_flags: 1,
        deadline_ns: u64::MAX - 5,
        trace_id: *b"0123456789abcdef",
        span_id: *b"01234567",
        reserved: [0; 2],
    };
    let (caller, server) = pair();
    thread::scope(|scope| {
        let call = scope.spawn(|| caller.call(&request(&context, b""), &mut Reply::default()));
        let taken = server.next().unwrap();
        assert_eq!(taken.context(), context);
        answer(taken);
        assert_eq!(call.join().unwrap(), Ok(STATUS_OK));
    });
}

#[test]
fn replies_of_all_sizes_arrive_from_several_threads() {
    with_echo(2, |caller| {
        thread::scope(|scope| {
            for seed in 0..5_u8 {
                scope.spawn(move || {
                    for size in [0, 1, 4095, 4096, 4097, 300_000, 1_000_000] {
                        let bytes = vec![seed; size];
                        let mut reply = Reply::default();
                        let context = CallContext::default();
                        let status = caller.call(&request(&context, &bytes), &mut reply);
                        assert_eq!(status, Ok(STATUS_OK), "{size}");
                        assert!(reply.bytes == bytes, "{size}");
                    }
                });
            }
        });
    });
}

#[test]
fn limits_hold_both_ways() {
    with_echo(1, |caller| {
        let context = CallContext::default();
        let bytes = vec![1; 2 << 20];
        let failure = caller.call(&request(&context, &bytes), &mut Reply::default());
        assert!(matches!(failure, Err(NoAnswer::TooLarge { .. })));
        let limited = Request {
            reply_limit: 10,
            ..request(&context, b"eleven bytes")
        };
        let mut reply = Reply::default();
        assert_eq!(
            caller.call(&limited, &mut reply),
            Ok(STATUS_REPLY_TOO_LARGE)
        );
        assert_eq!(reply.bytes, b"");
    });
}

#[test]
fn a_waiter_may_return_a_number() {
    let pool = Pool::new(1);
    assert_eq!(pool.take(|| true), Some(0));
    let asked = pool.take(|| {
        pool.give(0);
        true
    });
    assert_eq!(asked, Some(0));
    assert_eq!(pool.take(|| false), None);
}

#[test]
fn the_file_can_neither_shrink_nor_grow() {
    let (_caller, file) = Caller::create(SMALL).unwrap();
    assert!(rustix::fs::ftruncate(&file, 0).is_err());
    assert!(rustix::fs::ftruncate(&file, 1 << 40).is_err());
    let other = Geometry { slots: 4, ..SMALL };
    assert!(Server::open(&file, other).is_err());
}

#[test]
fn outgoing_requests_are_copied_and_end_on_disconnect() {
    let (server, file) = Server::create(SMALL).unwrap();
    let caller = Caller::open(file, SMALL).unwrap();
    let context = CallContext::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let taken = match server.next() {
                            Ok(taken) => taken,
                            Err(ended) => return ended,
                        };
                        let (method, bytes) = taken.copy_request();
                        let mut writer = taken.writer();
                        writer.media_type(&method);
                        let status = writer.write(&bytes);
                        taken.finish(status, &writer);
                    }
                })
            })
            .collect();
        for size in [0, 5, 4097, 300_000] {
            let bytes = vec![3; size];
            let mut reply = Reply::default();
            let status = caller.call(&request(&context, &bytes), &mut reply);
            assert_eq!(status, Ok(STATUS_OK), "{size}");
            assert!(
                reply.bytes == bytes && reply.media_type == b"echo",
                "{size}"
            );
        }
        server.hang_up();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Ended::HungUp);
        }
    });
}

#[test]
fn call_numbers_wrap_around_without_0() {
    assert_eq!(following(0), 1);
    let last = (1 << 29) - 1;
    assert_eq!(following(last), 1);
    assert_eq!(state::of(last, state::DONE) >> 3, last);
}

#[test]
fn payloads_arrive_whole_wherever_they_lie() {
    with_echo(1, |caller| {
        let context = CallContext::default();
        let edges = [INLINE_REQUEST, INLINE_REPLY, 4096, 1000];
        // The method's name precedes the request.
        for size in edges.iter().flat_map(|edge| edge - 6..edge + 2) {
            let bytes: Vec<_> = (0..size).map(|byte| byte as u8).collect();
            let mut reply = Reply::default();
            let status = caller.call(&request(&context, &bytes), &mut reply);
            assert_eq!(status, Ok(STATUS_OK), "{size}");
            assert!(reply.bytes == bytes, "{size}");
        }
    });
}

#[test]
fn a_partial_reply_arrives_whole_or_restarts() {
    let (caller, file) = Caller::create(SMALL).unwrap();
    let server = Server::open(file, SMALL).unwrap();
    let context = CallContext::default();
    for parts in [[1, 2, 3], [40, 8, 1], [40, 9, 1], [48, 0, 1], [49, 3, 4096]] {
        thread::scope(|scope| {
            let asks = scope.spawn(|| {
                let mut reply = Reply::default();
                let status = caller.call(&request(&context, b""), &mut reply);
                assert_eq!(status, Ok(STATUS_OK));
                reply.bytes
            });
            let taken = server.next().unwrap();
            let mut writer = taken.writer();
            for length in [60, 10] {
                writer.write(&vec![9; length]);
                assert_eq!(writer.written(), vec![9; length]);
                writer.clear();
            }
            let mut whole = Vec::new();
            for (part, length) in parts.into_iter().enumerate() {
                let bytes = vec![part as u8; length];
                writer.write(&bytes);
                whole.extend(bytes);
                assert_eq!(writer.written(), whole);
            }
            taken.finish(STATUS_OK, &writer);
            assert_eq!(asks.join().unwrap(), whole);
        });
    }
}

#[test]
fn concurrent_calls_are_answered_beside_a_busy_thread() {
    // One thread of the called side is kept busy: the other must be woken for the rest.
    let (caller, file) = Caller::create(SMALL).unwrap();
    let server = Server::open(file, SMALL).unwrap();
    let context = CallContext::default();
    thread::scope(|scope| {
        let long = scope.spawn(|| caller.call(&request(&context, b"long"), &mut Reply::default()));
        let taken = server.next().unwrap();
        let others = scope.spawn(|| {
            for _ in 0..20_000 {
                let one = server.next().unwrap();
                let writer = one.writer();
                one.finish(STATUS_OK, &writer);
            }
        });
        for _ in 0..20_000 {
            let asked = request(&context, b"");
            assert_eq!(caller.call(&asked, &mut Reply::default()), Ok(STATUS_OK));
        }
        others.join().unwrap();
        let writer = taken.writer();
        taken.finish(STATUS_OK, &writer);
        assert_eq!(long.join().unwrap(), Ok(STATUS_OK));
    });
}
