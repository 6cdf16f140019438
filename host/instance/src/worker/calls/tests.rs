//! Calls of a worker whose processes are threads of the test.

use std::thread;

use super::*;
use crate::{
    call::context,
    settings::Settings,
    worker::{
        error::End,
        fixtures::{Exit, Host, LONG, echo, go_live, link, settings, worker},
    },
};

const SHORT: Duration = Duration::from_millis(20);

fn call(worker: &Arc<Worker>, method: &str) -> Result<String, CallError> {
    make(worker, &Call::new(&context(None), method, b"request"))
}

fn make(worker: &Arc<Worker>, call: &Call<'_>) -> Result<String, CallError> {
    let mut reply = Reply::with_limit(1 << 20);
    match worker.call(call, &mut reply) {
        Ok(()) => Ok(String::from_utf8(reply.into_bytes()).unwrap()),
        Err(error) => Err(*error),
    }
}

/// Whether the watching thread would look around now.
fn is_woken(worker: &Worker) -> bool {
    rustix::io::read(&worker.wake, &mut [0; 8]).is_ok()
}

#[test]
fn the_live_process_answers() {
    let worker = worker(settings(), Host::alone().0);
    let (link, server) = link();
    go_live(&worker, &link);
    thread::scope(|scope| {
        let _end = Exit(&link);
        scope.spawn(|| echo(&server));
        assert_eq!(call(&worker, "go"), Ok(format!("{} go request", op::CALL)));
        let refused = call(&worker, "refuse");
        assert_eq!(refused, Err(CallError::Failed("no".to_owned())));
    });
}

#[test]
fn calls_wait_for_a_starting_process() {
    let (host, reports) = Host::alone();
    let worker = worker(settings(), host);
    let (link, server) = link();
    thread::scope(|scope| {
        let _end = Exit(&link);
        scope.spawn(|| echo(&server));
        let caller = scope.spawn(|| call(&worker, "go"));
        // It has begun, and there is no process yet.
        let report = reports.recv_timeout(LONG).unwrap();
        assert!(matches!(report, Report::FirstCallSinceSave));
        go_live(&worker, &link);
        assert!(caller.join().unwrap().is_ok());
    });
}

#[test]
fn only_the_first_call_asks_for_a_checkpoint() {
    let (host, reports) = Host::alone();
    let worker = worker(settings(), host);
    worker.publish(Availability::GivenUp("it crashed".to_owned()), None);
    for _ in 0..3 {
        call(&worker, "go").unwrap_err();
    }
    assert_eq!(reports.try_iter().count(), 1);
}

/// Calls a method, and kills the process that has begun with it while another one is live.
fn call_of_a_dying_process(method: &str) -> Result<String, CallError> {
    let worker = worker(settings(), Host::alone().0);
    let (first, second) = (link(), link());
    go_live(&worker, &first.0);
    thread::scope(|scope| {
        let _end = Exit(&second.0);
        scope.spawn(|| echo(&second.1));
        let caller = scope.spawn(|| call(&worker, method));
        let _begun = first.1.next().unwrap();
        go_live(&worker, &second.0);
        first.0.record_end("was killed by SIGKILL");
        first.0.hang_up();
        caller.join().unwrap()
    })
}

#[test]
fn idempotent_calls_are_repeated_after_a_crash() {
    let repeated = call_of_a_dying_process("get");
    assert_eq!(repeated, Ok(format!("{} get request", op::CALL)));
}

#[test]
fn other_calls_fail_with_the_crash() {
    let failed = call_of_a_dying_process("set");
    let crash = "was killed by SIGKILL".to_owned();
    assert_eq!(failed, Err(CallError::Crashed(crash)));
}

#[test]
fn a_call_is_repeated_only_once() {
    let worker = worker(settings(), Host::alone().0);
    let (link, _server) = link();
    link.hang_up();
    go_live(&worker, &link);
    let failed = call(&worker, "get");
    assert_eq!(failed, Err(CallError::Crashed("has ended".to_owned())));
}

#[test]
fn callers_learn_why_there_is_no_process() {
    let worker = worker(settings(), Host::alone().0);
    let cases = [
        (
            Availability::GivenUp("crashed too often".to_owned()),
            "crashed too often",
        ),
        (
            Availability::Restarting("was killed by SIGSEGV".to_owned()),
            "its worker was killed by SIGSEGV; a replacement starts soon",
        ),
        (Availability::Ended(End::Asked), "it was ended"),
    ];
    for (availability, reason) in cases {
        worker.publish(availability, None);
        let unavailable = CallError::Unavailable(reason.to_owned());
        assert_eq!(call(&worker, "go"), Err(unavailable));
    }
}

#[test]
fn a_passed_deadline_wakes_the_watcher() {
    let worker = worker(settings(), Host::alone().0);
    // It hangs: nothing is ever taken.
    let (link, _server) = link();
    go_live(&worker, &link);
    let context = context(Some(SHORT));
    let missed = make(&worker, &Call::new(&context, "go", b""));
    assert_eq!(missed, Err(CallError::Deadline));
    assert!(is_woken(&worker) && !is_woken(&worker));
}

#[test]
fn calls_without_deadline_keep_to_the_limit() {
    let limited = Settings {
        call_limit: Some(SHORT),
        ..settings()
    };
    let worker = worker(limited, Host::alone().0);
    let (link, _server) = link();
    go_live(&worker, &link);
    assert_eq!(call(&worker, "go"), Err(CallError::Deadline));
}

#[test]
fn cancelling_ends_the_wait_for_a_process() {
    let (host, reports) = Host::alone();
    let worker = worker(settings(), host);
    let cancel = Cancel::default();
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let context = context(None);
            make(
                &worker,
                &Call::new(&context, "go", b"").cancelled_by(&cancel),
            )
        });
        reports.recv_timeout(LONG).unwrap();
        cancel.cancel();
        assert_eq!(caller.join().unwrap(), Err(CallError::Cancelled));
    });
}

#[test]
fn cancelling_ends_the_wait_for_an_answer() {
    let worker = worker(settings(), Host::alone().0);
    let (link, server) = link();
    go_live(&worker, &link);
    let cancel = Cancel::default();
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let context = context(None);
            make(
                &worker,
                &Call::new(&context, "go", b"").cancelled_by(&cancel),
            )
        });
        let taken = server.next().unwrap();
        cancel.cancel();
        assert_eq!(caller.join().unwrap(), Err(CallError::Cancelled));
        assert!(taken.is_cancelled());
    });
}

#[test]
fn a_broken_protocol_orders_a_kill() {
    let worker = worker(settings(), Host::alone().0);
    let (link, _server) = link();
    let failed = worker.failed(&link, NoAnswer::Broken(hotmerge_wire::Breach::UnknownState));
    let what = "broke the protocol: it wrote an unknown state into a slot".to_owned();
    assert_eq!(failed, CallError::Crashed(what.clone()));
    assert_eq!(link.kill_order(), Some(what));
    assert!(is_woken(&worker));
}

#[test]
fn a_saved_state_is_the_next_checkpoint() {
    let worker = worker(settings(), Host::alone().0);
    let (link, server) = link();
    go_live(&worker, &link);
    thread::scope(|scope| {
        let _end = Exit(&link);
        scope.spawn(|| echo(&server));
        let mut state = Reply::with_limit(STATE_LIMIT);
        assert_eq!(worker.save(&mut state).unwrap(), "1.0.0");
        assert_eq!(state.bytes(), format!("{}  ", op::SAVE).as_bytes());
        worker
            .restore("0.9.0", b"older", &Cancel::default())
            .unwrap();
    });
    worker.publish(Availability::Restarting("crashed".to_owned()), None);
    let mut state = Reply::with_limit(STATE_LIMIT);
    let from = worker.save(&mut state).unwrap();
    assert_eq!((from.as_str(), state.bytes()), ("0.9.0", &b"older"[..]));
}

#[test]
fn only_a_worker_given_up_is_revived() {
    let worker = worker(settings(), Host::alone().0);
    worker.revive();
    assert!(!worker.state().revive && !is_woken(&worker));
    worker.publish(Availability::GivenUp("crashed too often".to_owned()), None);
    worker.revive();
    assert!(worker.state().revive && is_woken(&worker));
}
