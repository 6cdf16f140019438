//! Each side against a peer that breaks every rule.

mod bells;
mod driver;
mod old_kernels;

use std::{sync::Arc, time::Duration};

use super::*;

#[test]
fn hanging_up_ends_the_wait_for_an_area() {
    let (server, file) = Server::create(SMALL).unwrap();
    let hostile = Memory::open(&file, SMALL).unwrap();
    let slot = hostile.slot(1);
    slot.reply_limit.store(u32::MAX, Ordering::SeqCst);
    post(&hostile, 1);
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let taken = server.next().unwrap();
            let mut writer = taken.writer();
            let status = writer.write(&[1; 10_000]);
            taken.finish(STATUS_OK, &writer);
            status
        });
        while slot.state.load(Ordering::SeqCst) != state::of(1, state::WANTS_AREA) {
            thread::yield_now();
        }
        server.hang_up();
        assert_eq!(waits.join().unwrap(), STATUS_REPLY_TOO_LARGE);
    });
}

/// Says that there is a call in a slot.
fn post(hostile: &Memory, number: u32) {
    hostile.head().used.fetch_max(number + 1, Ordering::SeqCst);
    let slot = hostile.slot(number);
    slot.posted.fetch_add(1, Ordering::SeqCst);
}

/// Checks what the host reports about something that a hostile worker wrote.
#[track_caller]
fn breaks(breach: Breach, write: impl Fn(&Memory)) {
    let (server, file) = Server::create(SMALL).unwrap();
    let hostile = Memory::open(&file, SMALL).unwrap();
    write(&hostile);
    post(&hostile, 0);
    let ended = loop {
        match server.next() {
            // The same slot again, before its call was answered.
            Ok(_) => post(&hostile, 0),
            Err(ended) => break ended,
        };
    };
    assert!(ended == Ended::Broken(breach), "{ended:?}");
}

#[test]
fn each_breach_by_a_caller_is_named() {
    breaks(Breach::SlotInUse, |_| {});
    for used in [SMALL.slots + 1, u32::MAX] {
        breaks(Breach::NoSuchSlot, |memory| {
            memory.head().used.store(used, Ordering::SeqCst);
        });
    }
    breaks(Breach::NoSuchArea, |memory| {
        memory.slot(0).area.store(2, Ordering::SeqCst)
    });
    breaks(Breach::NoSuchArea, |memory| {
        memory.slot(0).area.store(u32::MAX, Ordering::SeqCst)
    });
    breaks(Breach::LongRequest, |memory| {
        let long = crate::HEAD_LIMIT as u32 + 1;
        memory.slot(0).method_len.store(long, Ordering::SeqCst)
    });
    breaks(Breach::LongRequest, |memory| {
        memory.slot(0).request_len.store(4097, Ordering::SeqCst)
    });
    breaks(Breach::LongRequest, |memory| {
        memory.slot(0).request_len.store(u32::MAX, Ordering::SeqCst)
    });
}

#[test]
fn two_calls_cannot_have_one_area() {
    let (server, file) = Server::create(SMALL).unwrap();
    let hostile = Memory::open(&file, SMALL).unwrap();
    for number in 0..2 {
        hostile.slot(number).area.store(1, Ordering::SeqCst);
        post(&hostile, number);
    }
    let _first = server.next().unwrap();
    let second = server.next().unwrap_err();
    assert_eq!(second, Ended::Broken(Breach::AreaInUse));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A worker that writes random values anywhere: the host answers each call and stays within bounds.
    #[test]
    fn hostile_contents_never_hurt_the_host(
        noise in proptest::collection::vec((any::<u16>(), any::<u64>()), 1..60),
        status in any::<i32>(),
        final_state in 0..16_u32,
        len in prop_oneof![Just(u32::MAX), 0..10_000_u32, any::<u32>()],
    ) {
        let (caller, file) = Caller::create(SMALL).unwrap();
        let hostile = Memory::open(&file, SMALL).unwrap();
        let head_and_slots = size_of::<Head>() + 3 * size_of::<Slot>();
        let context = CallContext { deadline_ns: now_ns() + 3_000_000, ..CallContext::default() };
        thread::scope(|scope| {
            let call = scope.spawn(|| {
                let mut reply = Reply::default();
                let asked = Request { reply_limit: 5000, ..request(&context, b"ask") };
                let outcome = caller.call(&asked, &mut reply);
                (outcome, reply)
            });
            for (offset, word) in &noise {
                let offset = usize::from(*offset) % (head_and_slots - 8);
                hostile.write(offset, &word.to_ne_bytes());
            }
            for number in 0..3 {
                let slot = hostile.slot(number);
                slot.status.store(status, Ordering::SeqCst);
                slot.reply_len.store(len, Ordering::SeqCst);
                slot.state.store(final_state, Ordering::SeqCst);
            }
            let (outcome, reply) = call.join().unwrap();
            assert!(reply.bytes.len() <= 5000);
            assert!(reply.media_type.len() <= 255);
            if outcome.is_err() {
                assert!(reply.bytes.is_empty());
            }
        });
        // Whatever it wrote, the host's private records are consistent.
        caller.hang_up();
        let _ = caller.abandoned_due();
        for number in 0..64 {
            let _ = (caller.describe(number), caller.under_way());
        }
        let late = caller.call(&request(&context, b""), &mut Reply::default());
        let is_gone = matches!(late, Err(NoAnswer::Gone { .. } | NoAnswer::Deadline));
        prop_assert!(is_gone);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// With the host as the called side: it answers or reports the violation, and never reads or writes
    /// out of bounds.
    #[test]
    fn hostile_calls_never_hurt_the_host(
        noise in proptest::collection::vec((any::<u16>(), any::<u64>()), 1..60),
        used in 0..5_u32,
    ) {
        let (server, file) = Server::create(SMALL).unwrap();
        let hostile = Memory::open(&file, SMALL).unwrap();
        let head_and_slots = size_of::<Head>() + 3 * size_of::<Slot>();
        for (offset, word) in &noise {
            let offset = usize::from(*offset) % (head_and_slots - 8);
            hostile.write(offset, &word.to_ne_bytes());
        }
        hostile.head().used.store(used, Ordering::SeqCst);
        thread::scope(|scope| {
            let serves = scope.spawn(|| {
                while let Ok(taken) = server.next() {
                    let (method, request) = taken.copy_request();
                    assert!(method.len() <= 1024 && request.len() <= 1 << 20);
                    let mut writer = taken.writer();
                    let _ = writer.write(&request);
                    let _ = writer.write(&[0; 3000]);
                    taken.finish(STATUS_OK, &writer);
                }
            });
            server.hang_up();
            serves.join().unwrap();
        });
    }
}
