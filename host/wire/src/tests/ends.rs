//! Calls that end without a reply: at their deadline, by cancellation, or with the worker.

use std::{sync::Arc, time::Duration};

use super::*;

#[test]
fn an_untaken_call_ends_at_its_deadline() {
    let (caller, _file) = Caller::create(SMALL).unwrap();
    for _ in 0..10 {
        let context = CallContext {
            deadline_ns: now_ns() + 1_000_000,
            ..CallContext::default()
        };
        let failure = caller.call(&request(&context, b""), &mut Reply::default());
        assert_eq!(failure, Err(NoAnswer::Deadline));
    }
    assert_eq!(caller.abandoned_due(), None);
}

/// Makes a call whose deadline has passed already.
fn call_in_vain(caller: &Caller) {
    let context = CallContext {
        deadline_ns: now_ns() + 1_000_000,
        ..CallContext::default()
    };
    let failure = caller.call(&request(&context, b""), &mut Reply::default());
    assert_eq!(failure, Err(NoAnswer::Deadline));
}

#[test]
fn untaken_calls_are_counted_until_one_is_answered() {
    let (caller, server) = pair();
    call_in_vain(&caller);
    call_in_vain(&caller);
    assert_eq!(caller.unanswered(), 2);
    let context = CallContext::default();
    thread::scope(|scope| {
        let call = scope.spawn(|| {
            caller
                .call(&request(&context, b""), &mut Reply::default())
                .is_ok()
        });
        let taken = server.next().unwrap();
        // The worker is busy, which is a sign of life.
        assert_eq!(caller.unanswered(), 0);
        answer(taken);
        assert!(call.join().unwrap());
    });
    assert_eq!(caller.unanswered(), 0);
}

#[test]
fn a_hanging_call_keeps_its_slot() {
    let (caller, server) = pair();
    let taken = abandoned(&caller, &server, 1).remove(0);
    assert!(taken.is_cancelled());
    assert!(caller.abandoned_due().is_some());
    answer(taken);
    assert_eq!(caller.abandoned_due(), None);
}

#[test]
fn a_cancelled_call_may_run_until_its_deadline() {
    let (caller, server) = pair();
    let cancel = Cancel::default();
    let limits = [now_ns() + 1_000_000_000_000, now_ns() + 2_000_000_000_000];
    let context = CallContext {
        deadline_ns: limits[1],
        ..CallContext::default()
    };
    let request = Request {
        give_up_ns: limits[0],
        cancel: Some(&cancel),
        ..request(&context, b"")
    };
    thread::scope(|scope| {
        let call = scope.spawn(|| caller.call(&request, &mut Reply::default()));
        let taken = server.next().unwrap();
        caller.cancel(&cancel);
        assert_eq!(call.join().unwrap(), Err(NoAnswer::Cancelled));
        assert_eq!(caller.abandoned_due(), Some(limits[0]));
        answer(taken);
    });
}

#[test]
fn a_returned_abandoned_call_frees_its_slot() {
    let (caller, server) = pair();
    let taken = abandoned(&caller, &server, SMALL.slots);
    let context = CallContext::default();
    thread::scope(|scope| {
        let waits = scope.spawn(|| caller.call(&request(&context, b""), &mut Reply::default()));
        taken.into_iter().for_each(answer);
        answer(server.next().unwrap());
        assert_eq!(waits.join().unwrap(), Ok(STATUS_OK));
    });
}

/// Calls on behalf of a plugin, with a way to cancel.
fn call_for(caller: &Caller, name: &str, deadline_ns: u64, cancel: &Cancel) -> Outcome {
    let context = CallContext {
        deadline_ns,
        ..CallContext::default()
    };
    let name = Arc::from(name);
    let request = Request {
        cancel: Some(cancel),
        on_behalf_of: Some(&name).filter(|name: &&Arc<str>| !name.is_empty()),
        ..request(&context, b"")
    };
    caller.call(&request, &mut Reply::default())
}

type Outcome = Result<Status, NoAnswer>;

#[test]
fn no_caller_holds_more_than_its_slots() {
    let geometry = Geometry { slots: 8, ..SMALL };
    let (caller, file) = Caller::create(geometry).unwrap();
    let server = Server::open(&file, geometry).unwrap();
    let next = Memory::open(&file, geometry).unwrap();
    let (never, cancel) = (Cancel::default(), Cancel::default());
    // Abandoned calls that keep running.
    let leave = |name: &str, calls: usize| {
        thread::scope(|scope| {
            let call = || call_for(&caller, name, u64::MAX, &cancel);
            let calls: Vec<_> = (0..calls).map(|_| scope.spawn(call)).collect();
            let taken: Vec<_> = calls.iter().map(|_| server.next().unwrap()).collect();
            caller.cancel(&cancel);
            for call in calls {
                assert_eq!(call.join().unwrap(), Err(NoAnswer::Cancelled));
            }
            taken
        })
    };
    let gets_none = |name: &str| {
        let soon = now_ns() + 30_000_000;
        let outcome = call_for(&caller, name, soon, &never);
        assert_eq!(outcome, Err(NoAnswer::Deadline), "{name}");
        let posted = next.slot(4).posted.load(Ordering::SeqCst);
        assert_eq!(posted, 0, "{name} has a slot");
    };
    let gets_one = |name: &str| {
        thread::scope(|scope| {
            let call = scope.spawn(|| call_for(&caller, name, 0, &never));
            answer(server.next().unwrap());
            assert_eq!(call.join().unwrap(), Ok(STATUS_OK), "{name}");
        });
    };
    let taken = leave("one", 4);
    gets_none("one");
    gets_one("another");
    gets_one("");
    taken.into_iter().for_each(answer);
    gets_one("one");
}

#[test]
fn a_cancelled_call_returns() {
    let (caller, _file) = Caller::create(SMALL).unwrap();
    let cancel = Cancel::default();
    thread::scope(|scope| {
        let call = scope.spawn(|| call_until_cancelled(&caller, &cancel));
        caller.cancel(&cancel);
        assert_eq!(call.join().unwrap(), Err(NoAnswer::Cancelled));
    });
}

#[test]
fn every_call_ends_when_its_worker_is_gone() {
    let (caller, server) = pair();
    let context = CallContext::default();
    thread::scope(|scope| {
        let calls: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| caller.call(&request(&context, b""), &mut Reply::default())))
            .collect();
        let _taken = server.next().unwrap();
        caller.hang_up();
        for call in calls {
            let failure = call.join().unwrap();
            assert!(matches!(failure, Err(NoAnswer::Gone { .. })), "{failure:?}");
        }
    });
    let late = caller.call(&request(&context, b""), &mut Reply::default());
    assert_eq!(late, Err(NoAnswer::Gone { begun: false }));
}

#[test]
fn an_abandoned_call_gets_no_larger_reply() {
    let (caller, server) = pair();
    let taken = abandoned(&caller, &server, 1).remove(0);
    let mut writer = taken.writer();
    assert_eq!(writer.write(&[7; 10_000]), STATUS_REPLY_TOO_LARGE);
    taken.finish(STATUS_OK, &writer);
    assert_eq!(caller.abandoned_due(), None);
}

#[test]
fn an_overlong_time_ends_centuries_later() {
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    for long in [100 * year, 1_000 * year, Duration::MAX] {
        assert!(after_ns(long) - now_ns() > u64::MAX / 8, "{long:?}");
    }
    let soon = after_ns(year) - now_ns();
    assert!(Duration::from_nanos(soon) <= year && Duration::from_nanos(soon) > year / 2);
}
