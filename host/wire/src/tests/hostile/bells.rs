//! A hostile side that attacks the words on which threads sleep.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, AtomicU32},
    time::Instant,
};

use rustix::thread::futex::{self, Flags};

use super::*;

/// Far less than a stranded thread would wait, and more than any machine needs.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// Moves the sleepers of a word to another one that nobody rings.
pub(super) fn move_away(word: &AtomicU32) {
    let nowhere = AtomicU32::new(0);
    let began = Instant::now();
    let moved = || futex::requeue(word, Flags::empty(), 0, u32::MAX >> 1, &nowhere);
    while moved().is_ok_and(|moved| moved == 0) {
        assert!(began.elapsed() < SOON, "nobody sleeps");
        thread::yield_now();
    }
}

/// Runs `disturb` repeatedly until `body` has returned.
fn while_it_runs<R>(disturb: impl Fn() + Sync, body: impl FnOnce() -> R) -> R {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                disturb();
            }
        });
        // Also if it fails: the other thread would run forever.
        let result = catch_unwind(AssertUnwindSafe(body));
        is_over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[test]
fn hanging_up_wakes_moved_sleepers() {
    let (server, file) = Server::create(SMALL).unwrap();
    let hostile = Memory::open(&file, SMALL).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| server.next().unwrap_err());
        move_away(&hostile.head().bell);
        server.hang_up();
        assert_eq!(waits.join().unwrap(), Ended::HungUp);
    });
}

/// Posts a call whose reply may be large.
fn post(hostile: &Memory) -> &Slot {
    hostile.head().used.store(1, Ordering::SeqCst);
    let slot = hostile.slot(0);
    slot.reply_limit.store(1 << 20, Ordering::SeqCst);
    slot.posted.store(following(0), Ordering::SeqCst);
    slot
}

#[test]
fn a_reply_that_gets_no_room_is_dropped() {
    let (server, file) = Server::create(SMALL).unwrap();
    let hostile = Memory::open(&file, SMALL).unwrap();
    post(&hostile);
    let taken = server.next().unwrap();
    let mut writer = taken.writer().giving_up_at(now_ns() + 1_000_000);
    let status = writer.write(&[0; 2 * SMALL.small_bytes as usize]);
    assert_eq!(status, STATUS_REPLY_TOO_LARGE);
    taken.finish(status, &writer);
    assert_eq!(server.under_way(), 0);
}

#[test]
fn a_waiting_reply_can_be_given_up() {
    let (server, file) = Server::create(SMALL).unwrap();
    let hostile = Memory::open(&file, SMALL).unwrap();
    let slot = post(&hostile);
    let gives_up = AtomicBool::new(false);
    let taken = server.next().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while slot.state.load(Ordering::SeqCst) & 7 != state::WANTS_AREA {
                thread::yield_now();
            }
            // There is no wake-up for it: none would reach a thread that was moved.
            move_away(&slot.state);
            gives_up.store(true, Ordering::SeqCst);
        });
        let mut writer = taken.writer().giving_up_if(&gives_up);
        let status = writer.write(&[0; 2 * SMALL.small_bytes as usize]);
        assert_eq!(status, STATUS_REPLY_TOO_LARGE);
    });
}

#[test]
fn an_answer_reaches_moved_sleepers() {
    let (caller, file) = Caller::create(SMALL).unwrap();
    let server = Server::open(&file, SMALL).unwrap();
    let context = CallContext::default();
    thread::scope(|scope| {
        let call = scope.spawn(|| caller.call(&request(&context, b""), &mut Reply::default()));
        let taken = server.next().unwrap();
        move_away(&Memory::open(&file, SMALL).unwrap().slot(0).state);
        answer(taken);
        assert_eq!(call.join().unwrap(), Ok(STATUS_OK));
    });
}

#[test]
fn ringing_without_end_breaks_the_rules() {
    let (server, file) = Server::create(SMALL).unwrap();
    let hostile = Memory::open(&file, SMALL).unwrap();
    let bell = &hostile.head().bell;
    let is_broken = |ended| ended == Ended::Broken(Breach::FalseAlarms);
    let ring = || {
        bell.fetch_add(1, Ordering::SeqCst);
        let _ = futex::wake(bell, Flags::empty(), 1);
    };
    while_it_runs(ring, || assert!(is_broken(server.next().unwrap_err())));
}

#[test]
fn ringing_for_nothing_beside_calls_is_honest() {
    let (server, file) = Server::create(SMALL).unwrap();
    let caller = Caller::open(file, SMALL).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Ok(taken) = server.next() {
                    answer(taken);
                }
            });
        }
        let calls: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let context = CallContext::default();
                    for _ in 0..5_000 {
                        let asked = request(&context, b"");
                        assert_eq!(caller.call(&asked, &mut Reply::default()), Ok(STATUS_OK));
                    }
                })
            })
            .collect();
        for call in calls {
            call.join().unwrap();
        }
        server.hang_up();
    });
}

/// The outcome of a call without a deadline whose state word is attacked.
fn call_while(disturb: impl Fn(&AtomicU32) + Sync) -> Result<Status, NoAnswer> {
    let (caller, file) = Caller::create(SMALL).unwrap();
    let hostile = Memory::open(&file, SMALL).unwrap();
    let state = &hostile.slot(0).state;
    let context = CallContext::default();
    while_it_runs(
        || disturb(state),
        || caller.call(&request(&context, b""), &mut Reply::default()),
    )
}

#[test]
fn a_state_that_flickers_ends_the_call() {
    let wants = state::of(1, state::WANTS_AREA);
    for nonsense in [state::GONE, state::of(2, state::DONE), u32::MAX] {
        let outcome = call_while(|state| {
            state.store(nonsense, Ordering::SeqCst);
            state.store(0, Ordering::SeqCst);
        });
        assert!(matches!(outcome, Err(NoAnswer::Broken(_))), "{outcome:?}");
    }
    let outcome = call_while(|state| state.store(wants, Ordering::SeqCst));
    assert!(matches!(outcome, Err(NoAnswer::Broken(_))), "{outcome:?}");
}

#[test]
fn waking_a_caller_without_end_breaks_the_rules() {
    let outcome = call_while(|state| _ = futex::wake(state, Flags::empty(), 1));
    assert!(
        outcome == Err(NoAnswer::Broken(Breach::FalseWakes)),
        "{outcome:?}"
    );
}

#[test]
fn callers_that_this_side_wakes_itself_go_on() {
    let (caller, server) = pair();
    let other = Cancel::default();
    let context = CallContext::default();
    thread::scope(|scope| {
        let call = scope.spawn(|| caller.call(&request(&context, b""), &mut Reply::default()));
        let taken = server.next().unwrap();
        for _ in 0..20_000 {
            caller.cancel(&other);
        }
        answer(taken);
        assert_eq!(call.join().unwrap(), Ok(STATUS_OK));
    });
}
