//! The promises with real threads. Orders that no run is likely to hit are in
//! `model.rs`.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::hazard::registry;
use crate::{Draining, Gate, LEVELS, TooDeep, VersionCell, leaked};

/// Set in the environment of a test process, it makes `membarrier` unavailable.
pub(crate) const REFUSE_MEMBARRIER: &str = "HOTMERGE_SWAP_TEST_REFUSE_MEMBARRIER";

const ALIVE: u64 = 0x5afe_5afe_5afe_5afe;
const DEAD: u64 = 0xdead_dead_dead_dead;

/// A version that shows when it is used after its end, and counts its ends.
#[derive(Debug)]
struct Canary {
    state: AtomicU64,
    number: usize,
    ends: Arc<AtomicUsize>,
}

impl Canary {
    fn boxed(number: usize, ends: &Arc<AtomicUsize>) -> Box<Self> {
        Box::new(Self {
            state: AtomicU64::new(ALIVE),
            number,
            ends: Arc::clone(ends),
        })
    }

    fn check(&self) -> usize {
        assert_eq!(self.state.load(Ordering::Relaxed), ALIVE);
        self.number
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        assert_eq!(self.state.swap(DEAD, Ordering::Relaxed), ALIVE);
        self.ends.fetch_add(1, Ordering::Relaxed);
    }
}

/// A call that has begun, on a thread of its own, and lasts until it is let go.
struct LongCall {
    release: mpsc::Sender<()>,
    thread: thread::JoinHandle<usize>,
}

impl LongCall {
    fn begin(cell: &Arc<VersionCell<Canary>>) -> Self {
        let (release, released) = mpsc::channel();
        let (begun, has_begun) = mpsc::channel();
        let cell = Arc::clone(cell);
        let thread = thread::spawn(move || {
            let call = |live: Option<&Canary>| {
                let live = live.expect("the cell is full");
                begun.send(()).expect("the test waits");
                released.recv().expect("the test lets go");
                live.check()
            };
            cell.with(call).expect("not nested")
        });
        has_begun.recv().expect("the call begins");
        Self { release, thread }
    }

    fn end(self) -> usize {
        self.release.send(()).expect("the call runs");
        self.thread.join().expect("the version was alive")
    }
}

fn ends() -> Arc<AtomicUsize> {
    Arc::default()
}

fn full(number: usize, ends: &Arc<AtomicUsize>) -> Arc<VersionCell<Canary>> {
    Arc::new(VersionCell::from(Canary::boxed(number, ends)))
}

fn drained(draining: Draining<Canary>) -> usize {
    draining.wait(None).expect("no deadline").check()
}

#[test]
fn a_cell_reports_its_version_or_emptiness() {
    let ends = ends();
    let cell = VersionCell::new();
    assert_eq!(cell.with(|live: Option<&Canary>| live.is_none()), Ok(true));
    assert!(cell.swap(None).is_none());
    assert!(cell.swap(Some(Canary::boxed(1, &ends))).is_none());
    assert_eq!(cell.with(|live| live.map(Canary::check)), Ok(Some(1)));
    let old = cell.swap(None).expect("it was full");
    assert_eq!(cell.with(|live| live.is_none()), Ok(true));
    assert_eq!((old.in_flight(), old.number), (0, 1));
    assert_eq!(drained(old), 1);
}

#[test]
fn dropping_a_cell_or_unused_version_ends_it() {
    let ends = ends();
    let cell = full(1, &ends);
    drop(cell.swap(Some(Canary::boxed(2, &ends))));
    assert_eq!(ends.load(Ordering::Relaxed), 1);
    drop(cell);
    assert_eq!(ends.load(Ordering::Relaxed), 2);
}

#[test]
fn twenty_thousand_switches_fail_no_call() {
    const SWITCHES: usize = 20_000;
    const CALLS: usize = 20_000;
    let ends = ends();
    let cell = full(0, &ends);
    let stop = Arc::new(AtomicBool::new(false));
    let callers = [(); 2].map(|()| {
        let cell = Arc::clone(&cell);
        Caller::start(&stop, move |latest| call_twice(&cell, latest))
    });
    let mut number = 0;
    // On a busy machine all switches fit into one time slice; go on until the
    // callers had theirs.
    while number < SWITCHES || callers.iter().any(|caller| caller.has_yet_to_make(CALLS)) {
        number += 1;
        let old = cell.swap(Some(Canary::boxed(number, &ends)));
        assert_eq!(drained(old.expect("never empty")), number - 1);
        assert_eq!(ends.load(Ordering::Relaxed), number);
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.thread.join().expect("every version was alive");
    }
}

/// A thread that calls until it is stopped.
struct Caller {
    calls: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl Caller {
    /// `call` gets the latest version that it saw, and gives the one it sees.
    fn start(stop: &Arc<AtomicBool>, call: impl Fn(usize) -> usize + Send + 'static) -> Self {
        let calls = Arc::<AtomicUsize>::default();
        let (stop, count) = (Arc::clone(stop), Arc::clone(&calls));
        let thread = thread::spawn(move || {
            let mut latest = 0;
            while !stop.load(Ordering::Relaxed) {
                latest = call(latest);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { calls, thread }
    }

    fn has_yet_to_make(&self, calls: usize) -> bool {
        !self.thread.is_finished() && self.calls.load(Ordering::Relaxed) < calls
    }
}

/// A call and one within it. The versions never go back, neither behind `latest`.
fn call_twice(cell: &VersionCell<Canary>, latest: usize) -> usize {
    let outer = |live: Option<&Canary>| {
        let live = live.expect("never empty");
        let first = live.check();
        let inner = cell.with(|live| live.expect("never empty").check());
        let inner = inner.expect("two levels");
        assert!(latest <= first && first <= inner && live.check() == first);
        inner
    };
    cell.with(outer).expect("one level")
}

#[test]
fn it_holds_without_membarrier() {
    let this = std::env::current_exe().expect("a test is a program");
    let test = "twenty_thousand_switches_fail_no_call";
    let output = Command::new(this)
        .args(["--exact", &format!("tests::{test}")])
        .env(REFUSE_MEMBARRIER, "1")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[test]
fn swaps_from_many_threads_return_each_version_once() {
    const EACH: usize = 1_000;
    let ends = ends();
    let cell = full(0, &ends);
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (cell, ends) = (Arc::clone(&cell), Arc::clone(&ends));
            thread::spawn(move || {
                for number in 0..EACH {
                    let new = Canary::boxed(writer * EACH + number, &ends);
                    drained(cell.swap(Some(new)).expect("never empty"));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("no version came twice");
    }
    assert_eq!(ends.load(Ordering::Relaxed), 3 * EACH);
}

#[test]
fn the_last_call_to_end_wakes_the_waiter() {
    let ends = ends();
    let cell = full(1, &ends);
    let (first, second) = (LongCall::begin(&cell), LongCall::begin(&cell));
    let old = cell.swap(Some(Canary::boxed(2, &ends))).expect("full");
    assert_eq!(old.in_flight(), 2);
    assert_eq!(cell.with(|live| live.map(Canary::check)), Ok(Some(2)));

    let waiter = thread::spawn(move || drained(old));
    assert_eq!(first.end(), 1);
    assert_eq!(ends.load(Ordering::Relaxed), 0, "one call still runs");
    assert_eq!(second.end(), 1);
    assert_eq!(waiter.join().expect("it was woken"), 1);
    assert_eq!(ends.load(Ordering::Relaxed), 1);
}

#[test]
fn two_old_versions_drain_independently() {
    let ends = ends();
    let cell = full(1, &ends);
    let on_first = LongCall::begin(&cell);
    let first = cell.swap(Some(Canary::boxed(2, &ends))).expect("full");
    let on_second = LongCall::begin(&cell);
    let second = cell.swap(Some(Canary::boxed(3, &ends))).expect("full");
    let waiters = [first, second].map(|old| thread::spawn(move || drained(old)));
    assert_eq!((on_second.end(), on_first.end()), (2, 1));
    assert_eq!(waiters.map(|waiter| waiter.join().expect("woken")), [1, 2]);
}

#[test]
fn a_passed_deadline_returns_the_version_untouched() {
    let ends = ends();
    let cell = full(7, &ends);
    let call = LongCall::begin(&cell);
    let old = cell.swap(None).expect("full");
    let old = old.wait(Some(Instant::now())).expect_err("in use");
    let soon = Instant::now() + Duration::from_millis(5);
    let old = old.wait(Some(soon)).expect_err("in use");
    assert!(Instant::now() >= soon);
    assert_eq!((old.in_flight(), old.check()), (1, 7));
    assert_eq!(call.end(), 7);
    assert_eq!(old.in_flight(), 0);
    let passed = old
        .wait(Some(soon))
        .expect("an unused version needs no time");
    assert_eq!(passed.check(), 7);
}

#[test]
fn a_version_in_use_is_leaked_when_dropped() {
    let ends = ends();
    let cell = full(1, &ends);
    let call = LongCall::begin(&cell);
    let before = leaked();
    drop(cell.swap(None));
    assert_eq!(leaked(), before + 1);
    assert_eq!(call.end(), 1, "it lives on under its call");
    assert_eq!(ends.load(Ordering::Relaxed), 0);
}

#[test]
fn an_unwinding_call_counts_as_ended() {
    let ends = ends();
    let cell = full(1, &ends);
    let inner = || cell.with(|_| cell.with(|_| panic!("on purpose")));
    assert!(catch_unwind(AssertUnwindSafe(inner)).is_err());
    let old = cell.swap(None).expect("full");
    assert_eq!(old.in_flight(), 0);
    assert_eq!(nest(&cell, LEVELS), Ok(()), "all levels are free again");
    drained(old);
}

/// Calls within calls, `levels` deep.
fn nest(cell: &VersionCell<Canary>, levels: usize) -> Result<(), TooDeep> {
    if levels == 0 {
        return Ok(());
    }
    cell.with(|_| nest(cell, levels - 1))?
}

#[test]
fn calls_nested_beyond_the_limit_are_refused() {
    let ends = ends();
    let cell = full(1, &ends);
    assert_eq!(nest(&cell, LEVELS), Ok(()));
    assert_eq!(nest(&cell, LEVELS + 1), Err(TooDeep));
    assert_eq!(nest(&cell, LEVELS), Ok(()), "a refusal takes nothing");
    assert!(TooDeep.to_string().contains("16 deep"));
}

#[test]
fn a_switch_inside_a_call_keeps_its_version() {
    let ends = ends();
    let (outer, other) = (full(1, &ends), full(10, &ends));
    let call = |live: Option<&Canary>| {
        let old = outer.swap(Some(Canary::boxed(2, &ends))).expect("full");
        assert_eq!(old.in_flight(), 1);
        let seen = other.with(|other| {
            let new = outer.with(|live| live.map(Canary::check));
            (other.map(Canary::check), new)
        });
        assert_eq!(seen, Ok((Some(10), Ok(Some(2)))));
        assert_eq!(live.map(Canary::check), Some(1));
        old
    };
    let old = outer.with(call).expect("not nested");
    assert_eq!(drained(old), 1);
}

#[test]
fn records_of_ended_threads_are_used_again() {
    let ends = ends();
    let cell = full(1, &ends);
    for _ in 0..500 {
        let cell = Arc::clone(&cell);
        let thread = thread::spawn(move || cell.with(|live| live.map(Canary::check)));
        assert_eq!(thread.join().expect("alive"), Ok(Some(1)));
    }
    // Tests beside this one have threads of their own, but not hundreds.
    assert!(registry().len() < 100, "{} records", registry().len());
}

/// Calls, also nested, when its thread is torn down.
struct CallsAtTheEnd(Arc<VersionCell<Canary>>, mpsc::Sender<usize>);

impl Drop for CallsAtTheEnd {
    fn drop(&mut self) {
        for _ in 0..2 {
            let seen = self.0.with(|_| self.0.with(|live| live.map(Canary::check)));
            let _ = self
                .1
                .send(seen.ok().and_then(Result::ok).flatten().unwrap_or(0));
            assert_eq!(nest(&self.0, LEVELS + 1), Err(TooDeep));
        }
    }
}

#[test]
fn calls_from_thread_local_destructors_are_safe() {
    thread_local! {
        // One is torn down before this crate's own variable, the other after it.
        static BEFORE: RefCell<Option<CallsAtTheEnd>> = const { RefCell::new(None) };
        static AFTER: RefCell<Option<CallsAtTheEnd>> = const { RefCell::new(None) };
    }
    let ends = ends();
    let cell = full(1, &ends);
    let (seen, all_seen) = mpsc::channel();
    let on_thread = Arc::clone(&cell);
    let thread = thread::spawn(move || {
        let calls = || Some(CallsAtTheEnd(Arc::clone(&on_thread), seen.clone()));
        BEFORE.set(calls());
        on_thread.with(|_| ()).expect("not nested");
        AFTER.set(calls());
    });
    thread.join().expect("its end is clean");
    assert_eq!(all_seen.iter().collect::<Vec<_>>(), [1; 4]);
    assert_eq!(drained(cell.swap(None).expect("full")), 1);
}

#[test]
fn versions_come_and_go_while_threads_do() {
    let ends = ends();
    let cell = full(0, &ends);
    let start = Arc::new(Barrier::new(2));
    let others = {
        let (cell, start) = (Arc::clone(&cell), Arc::clone(&start));
        move || {
            start.wait();
            for _ in 0..300 {
                let cell = Arc::clone(&cell);
                let call = move || cell.with(|live| live.map(Canary::check));
                thread::spawn(call)
                    .join()
                    .expect("alive")
                    .expect("not nested");
            }
        }
    };
    let others = thread::spawn(others);
    start.wait();
    for number in 1..=3_000 {
        let old = cell.swap(Some(Canary::boxed(number, &ends)));
        drained(old.expect("never empty"));
    }
    others.join().expect("every version was alive");
}

#[test]
fn a_version_is_restored_during_its_calls() {
    let ends = ends();
    let cell = full(1, &ends);
    let call = LongCall::begin(&cell);
    let old = cell.swap(None).expect("full");
    assert!(cell.put_back(old).is_none());
    assert_eq!(cell.with(|live| live.map(Canary::check)), Ok(Some(1)));
    let old = cell.swap(None).expect("full");
    assert_eq!(old.in_flight(), 1);
    assert_eq!(call.end(), 1);
    assert_eq!(drained(old), 1);
    assert_eq!(ends.load(Ordering::Relaxed), 1);
}

#[test]
fn five_thousand_pauses_fail_no_call() {
    const PAUSES: usize = 5_000;
    const CALLS: usize = 5_000;
    let ends = ends();
    let gate = Arc::new(Gate::new());
    assert_eq!(gate.with(|live: Option<&Canary>| live.is_none()), Ok(true));
    gate.swap(Some(Canary::boxed(0, &ends)));
    let stop = Arc::new(AtomicBool::new(false));
    let callers = [(); 2].map(|()| {
        let gate = Arc::clone(&gate);
        Caller::start(&stop, move |latest| {
            let call = |live: Option<&Canary>| live.expect("it waits").check();
            let seen = gate.with(call).expect("not nested");
            assert!(seen >= latest);
            seen
        })
    });
    let mut number = 0;
    while number < PAUSES || callers.iter().any(|caller| caller.has_yet_to_make(CALLS)) {
        number += 1;
        let old = gate.pause().expect("never empty");
        if number % 2 == 0 {
            gate.put_back(old);
            continue;
        }
        let old = old.wait(None).expect("no deadline");
        assert!(old.check() < number);
        gate.swap(Some(Canary::boxed(number, &ends)));
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.thread.join().expect("every version was alive");
    }
}
